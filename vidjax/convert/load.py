"""Loading of pretrained weights: detects their origin and converts them for a registered model."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from vidjax.analysis.params import abstract_variables
from vidjax.checkpoint_io import check_skip, merge_report, merge_variables
from vidjax.convert import formats
from vidjax.convert.engine import Rules, class_count, convert, unmatched
from vidjax.convert.inflate import adapt_channels, inflate
from vidjax.convert.inflate_vit import FRESH, inflate_vit
from vidjax.convert.origins import (
    c3d,
    caffe2,
    efficientnet_lite,
    image_trunks,
    inception,
    movinet,
    mvit,
    pyslowfast,
    pytorchvideo_resnets,
    timesformer,
    timm,
    torchvision,
    tsm,
    video_swin,
    vit,
    vivit,
    vtn,
    x3d_csn,
)
from vidjax.convert.packages import locate
from vidjax.convert.preprocessing import Preprocessing, preprocessing
from vidjax.errors import UserError, unknown
from vidjax.layers.stacking import unstack_blocks
from vidjax.models import create_model, spec
from vidjax.registry import InputShape, dummy_input, fields

Source = str | os.PathLike | Mapping[str, Any]

# Naming scheme -> {vidjax model: rules}. "vidjax" itself requires no rules.
ORIGINS: dict[str, Mapping[str, Rules]] = {
    "torchvision": torchvision.RULES
    | image_trunks.TORCHVISION
    | inception.TORCHVISION
    | mvit.TORCHVISION
    | video_swin.TORCHVISION
    | vit.TORCHVISION,
    "timm": timm.RULES | image_trunks.TIMM | vit.TIMM,
    "pytorchvideo": pytorchvideo_resnets.RULES | mvit.PYTORCHVIDEO | x3d_csn.PYTORCHVIDEO,
    "pyslowfast": pyslowfast.RULES | mvit.PYSLOWFAST,
    "pyslowfast_caffe2": caffe2.RULES,
    "c3d_pytorch": c3d.RULES,
    "deepmind": inception.DEEPMIND,
    "deepmind_kinetics600": inception.DEEPMIND_600,
    "pytorch_i3d": inception.PORT,
    "timesformer": timesformer.AUTHORS,
    "transformers": timesformer.TRANSFORMERS | vit.TRANSFORMERS | vivit.TRANSFORMERS,
    "transformers_4": vit.TRANSFORMERS_4 | vivit.TRANSFORMERS_4,
    "scenic": vivit.SCENIC,
    "tsm": tsm.RULES,
    "video_swin": video_swin.AUTHORS,
    "swin": video_swin.IMAGE,
    "videomae": vit.AUTHORS,
    "vmz": x3d_csn.VMZ,
    "movinet_pytorch": movinet.RULES,
    "vtn": vtn.AUTHORS,
    "efficientnet_lite_pytorch": efficientnet_lite.RULES,
}
_OURS = re.compile(r"(params|batch_stats)/")
HEAD = r"^params/(\w+/)?head/"  # one per stream in two-stream models
_NON_LOCAL = "_nonlocal[0-9]+/"
FIRST = "params/stem_conv/kernel"
_PATCHES = "params/patch_embed/kernel"
_NOT_TRUNK = "^[a-z_]+/(?!([a-z_]+/)?trunk/)"
_STEM = re.compile("^params/(([a-z_]+/)?trunk/)?stem_conv/kernel$")


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights that a source provides for a model.

    Attributes:
      what: description of the source, for messages.
      variables: nested arrays at vidjax paths, with the source's number of classes.
      num_classes: classes of the source's classifier; None if it has none for this model.
      fresh: regexes of the model's paths that the source does not provide.
      origin: the naming scheme; "torchvision or timm" if both match.
      owner: the registered model that the weights belong to: the requested model, its image backbone, or the
        image model that it is inflated from.
      of_images: whether the owner is an image model.
      notes: messages for the user.
      meta: metadata of a vidjax checkpoint, else {}.
      preprocessing: preprocessing under which the owner's published accuracy was measured; None for a vidjax
        checkpoint, which has a config.
    """

    what: str
    variables: dict[str, Any]
    num_classes: int | None
    fresh: tuple[str, ...]
    origin: str
    owner: str
    of_images: bool
    notes: tuple[str, ...]
    meta: dict[str, Any]
    preprocessing: Preprocessing | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Model fields that the weights were trained with."""
        if self.preprocessing:
            return dict(self.preprocessing.options)
        config = self.meta.get("config", {}).get("model", {})
        return dict(config.get("options", {})) if config.get("name") == self.owner else {}

    def merge_into(self, fresh: Mapping[str, Any], skip: Sequence[str] = ()) -> dict[str, Any]:
        """Merges the weights into newly initialized variables, see `merge_variables`.

        The first kernel of an image model is adapted to the input channels of `fresh`. A regex of `skip` that
        matches nothing is an error.
        """
        target, flat = flatten_dict(fresh, sep="/"), flatten_dict(self.variables, sep="/")
        for path in filter(_STEM.match, target.keys() & flat.keys()):
            if self.of_images and not any(re.search(s, path) for s in skip):
                flat[path] = _to_channels(flat[path], target[path].shape[-2], path)
        loaded = unflatten_dict(flat, sep="/")
        check_skip(fresh, loaded, skip, self.what)
        return merge_variables(fresh, loaded, (*skip, *self.fresh), self.what)

    def report(self, fresh: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
        """Describes the effect of `merge_into`, see `merge_report`."""
        return merge_report(fresh, self.variables, (*skip, *self.fresh))


def read_weights(
    name: str,
    source: Source,
    origin: str | None = None,
    *,
    inflation: str | None = None,
    tiny: bool = False,
    **options: Any,
) -> Weights:
    """Reads pretrained weights for a registered model.

    The weights may be those of the model, of its image backbone, or of the image model that it is inflated
    from.

    Args:
      name: the registered model.
      source: a file (see `formats.read`), a vidjax checkpoint folder, the name of a model whose weights are a
        package (see `packages`), or a mapping of the source's names to numpy arrays or PyTorch tensors.
      origin: the naming scheme; detected from the names if None.
      inflation: how image kernels are inflated, "average" or "centre", see `inflate_kernel`. If None,
        "average" for convolutions and "centre" for tubelet embeddings.
      tiny: whether the weights are for the model's tiny preset.
      **options: model fields that differ from the preset.

    Raises:
      UserError: the source cannot be read, does not fit the model, or its naming scheme is unknown.
    """
    if isinstance(source, Mapping):
        what, arrays, meta = "the mapping", formats.state_dict(source, "the mapping"), {}
    else:
        source = locate(source)
        what = str(source)
        arrays, meta = formats.read(source)
    if origin is not None and origin not in (*ORIGINS, "vidjax"):
        raise unknown("origin of weights", origin, (*ORIGINS, "vidjax"))
    model = create_model(name, tiny=tiny, **options)
    trunk, image = getattr(model, "trunk", None), spec(name).inflates
    if origin == "vidjax" or (origin is None and all(map(_OURS.match, arrays))):
        origin, flat = "vidjax", arrays
        if image and any("/trunk/" in k for k in arrays):  # the backbone of a frame model is an image model
            arrays = {k.replace("/trunk/", "/"): x for k, x in arrays.items() if "/trunk/" in k}
            flat = arrays
        owner = trunk if trunk and not any("/trunk/" in k for k in arrays) else name
        if image and any(k in arrays and arrays[k].ndim == 4 for k in (FIRST, _PATCHES)):
            owner = image
        head = next((x for k, x in arrays.items() if re.match(HEAD, k)), None)
        classes = None if head is None else head.shape[-1]
    else:
        origin, owner, rules = _recognize(arrays, [m for m in (name, trunk, image) if m], origin, what)
        classes = class_count(arrays, rules)
        if owner == trunk:
            built = create_model(owner, classes or 1, **model.trunk_options)
            tiny = model.trunk_options.get("tiny", False)
        elif owner == image:
            shared = (fields(spec(image).module) & fields(type(model))) - {"num_classes"}
            options = {f: getattr(model, f) for f in shared}
            if spec(image).family == "vit":  # positions may have any resolution
                (positions,) = (r.source[0] for r in rules if "params/pos_embed" in r.ours)
                options["position_grid"] = (math.isqrt(arrays[positions].shape[1]),) * 2
            built = create_model(image, classes or 1, **options)
        else:
            built = model.clone(num_classes=classes or 1)
        shapes = abstract_variables(built, _input_shape(owner, tiny))
        targets = flatten_dict(unstack_blocks(shapes), sep="/")  # rules name single blocks
        if classes is None:
            targets = {k: x for k, x in targets.items() if not re.match(HEAD, k)}
        flat = convert(arrays, rules, targets, f"{what} ({origin}) as {owner}")

    fresh, notes = (), ()
    if owner == image and spec(image).family == "vit":
        target = unstack_blocks(abstract_variables(model, _input_shape(name, tiny)))
        flat = {k: x for k, x in flat.items() if not re.match(HEAD, k)}
        grid = (model.size // model.patch,) * 2
        flat, done = inflate_vit(flat, flatten_dict(target, sep="/"), grid, inflation or "centre")
        if getattr(model, "tanh_gelu", False):
            done.append("GELU uses the tanh approximation, unlike the source, unless tanh_gelu=False")
        classes, fresh = None, (FRESH,)
        notes = (f"{name} starts from the weights of {owner}: {'; '.join(done)}",)
    elif owner == image:
        target = unstack_blocks(abstract_variables(model, _input_shape(name, tiny)))
        flat = {k: x for k, x in flat.items() if not re.match(HEAD, k)}
        if FIRST in flat:  # with the source's channels, which `merge_into` adapts
            stem = target["params"]["stem_conv"]
            shape = (*stem["kernel"].shape[:-2], *flat[FIRST].shape[-2:])
            stem["kernel"] = jax.ShapeDtypeStruct(shape, stem["kernel"].dtype)
        # Non-local blocks start as the identity; the image model has no counterpart.
        own = [k for k in flatten_dict(target, sep="/") if re.search(_NON_LOCAL, k)]
        skip = ("params/head", *own)
        flat = flatten_dict(
            inflate(unflatten_dict(flat, sep="/"), target, inflation or "average", skip), sep="/"
        )
        classes, fresh = None, (HEAD, *((_NON_LOCAL,) if own else ()))
        rest = "head and non-local blocks" if own else "head"
        notes = (f"the weights of {owner} are inflated; {rest} of {name} are newly initialized",)
    elif owner != name:
        # Drop the classifier of image classes; the video model has its own.
        flat = {
            k.replace("/", f"/{place}/", 1): x
            for place in getattr(model, "TRUNKS", ("trunk",))
            for k, x in flat.items()
            if not re.match(HEAD, k)
        }
        classes, fresh = None, (_NOT_TRUNK,)
        notes = (
            f"the weights of {owner} are loaded into the trunk; the rest of {name} is newly initialized",
        )
    elif classes is None:
        fresh, notes = (HEAD,), ("the source has no classifier; the head is newly initialized",)
    declared = preprocessing(origin, owner)
    return Weights(
        what=what,
        variables=unflatten_dict(flat, sep="/"),
        num_classes=classes,
        fresh=fresh,
        origin=origin,
        owner=owner,
        of_images=owner != name,
        notes=notes,
        meta=meta,
        preprocessing=declared and declared.of_classes(classes),
    )


def load(
    name: str,
    source: Source,
    num_classes: int | None = None,
    origin: str | None = None,
    inflation: str | None = None,
    **overrides: Any,
) -> tuple[nn.Module, dict[str, Any], Weights]:
    """Creates a model with pretrained weights, see `load_pretrained`; also returns the `Weights`."""
    weights = read_weights(name, source, origin, inflation=inflation, **overrides)
    if weights.owner == name:
        overrides = weights.options | overrides
    source_classes = weights.num_classes
    if num_classes is None:
        num_classes = source_classes or spec(name).num_classes
    skip = ()
    if source_classes is not None and num_classes != source_classes:
        skip = (HEAD,)
        note = f"{num_classes} classes, {source_classes} in the source: the head is newly initialized"
        weights = dataclasses.replace(weights, notes=(*weights.notes, note))
    model = create_model(name, num_classes, **overrides)
    shape = _input_shape(name, overrides.get("tiny", False))
    fresh = flatten_dict(abstract_variables(model, shape), sep="/")
    kept = [k for k in fresh if any(re.search(s, k) for s in (*skip, *weights.fresh))]

    @jax.jit  # skips the initialization of everything that is not returned
    def initialize():
        flat = flatten_dict(model.init(jax.random.PRNGKey(0), dummy_input(shape, make=jnp.zeros)), sep="/")
        return {k: flat[k] for k in kept}

    if kept:
        fresh |= initialize()
    return model, weights.merge_into(unflatten_dict(fresh, sep="/"), skip), weights


def load_pretrained(
    name: str,
    source: Source,
    num_classes: int | None = None,
    origin: str | None = None,
    inflation: str | None = None,
    **overrides: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """Creates a registered model with pretrained weights.

    Args:
      name: a registered name. Models with an image backbone also accept the weights of the backbone.
      source: a file (.safetensors, .pth, .npz, ...), a checkpoint folder, the name of a model whose weights
        are an installed package (`packages.PACKAGES`), or a mapping of the source's names to numpy arrays or
        PyTorch tensors.
      num_classes: number of classes; defaults to that of the source. If they differ, the head is newly
        initialized from a fixed seed, with a warning.
      origin: the project whose parameter names are used, e.g. "timm"; detected from the names if None.
      inflation: how image weights are inflated, see `read_weights`.
      **overrides: fields of the linen class, and `tiny`, see `create_model`.

    Returns:
      The model and its variables: `logits, endpoints = model.apply(variables, video)`.

    Raises:
      UserError: lists everything that does not fit.
    """
    model, variables, weights = load(name, source, num_classes, origin, inflation, **overrides)
    for note in weights.notes:
        logging.warning("%s: %s", name, note)
    return model, variables


def rules_for(name: str, origin: str) -> Rules:
    """Returns the rules between a model and `origin`. Raises `UserError` if there are none."""
    if origin not in ORIGINS:
        raise unknown("origin of weights", origin, ORIGINS)
    if name not in ORIGINS[origin]:
        raise UserError(f"no rules for {name} in the naming of {origin}, only for {_list(ORIGINS[origin])}")
    return ORIGINS[origin][name]


def _input_shape(name: str, tiny: bool) -> InputShape:
    return spec(name).tiny_input_shape if tiny else spec(name).input_shape


def _to_channels(kernel: Any, channels: int, path: str) -> Any:
    """Applies `adapt_channels` if the number differs: "tile" for multiples, else "average"."""
    source_channels = kernel.shape[-2]
    if source_channels == channels:
        return kernel
    mode = "average" if channels % source_channels else "tile"
    logging.warning("%s: adapted from %d to %d input channels (%s)", path, source_channels, channels, mode)
    return adapt_channels(kernel, channels, mode)


def _recognize(
    arrays: Mapping[str, Any], owners: Sequence[str], origin: str | None, what: str
) -> tuple[str, str, Rules]:
    """Returns the origin, model and rules that leave the fewest names unmatched."""
    origins = ORIGINS if origin is None else {origin: ORIGINS[origin]}
    found = [(o, m, models[m]) for o, models in origins.items() for m in owners if m in models]
    if not found:
        names = _list({m for models in origins.values() for m in models})
        raise UserError(f"no rules to read {owners[0]} from {origin or 'another project'}, only {names}")
    over = [len(unmatched(arrays, rules)) for _, _, rules in found]
    fits = [f for f, n in zip(found, over) if n == min(over)]
    _, owner, rules = fits[0]
    if min(over) > len(arrays) / 2:
        asked = _list({o for o, _, _ in found})
        raise UserError(
            f"{what} does not fit {owners[0]} in the naming of {asked}: no rule matches {min(over)} "
            f"of its {len(arrays)} arrays, such as {', '.join(unmatched(arrays, rules)[:3])}"
        )
    if odd := [o for o, _, r in fits if r is not rules]:
        raise UserError(
            f"{what} fits the naming of both {fits[0][0]} and {odd[0]}: set origin to one of them"
        )
    return " or ".join(o for o, m, _ in fits if m == owner), owner, rules


def _list(names) -> str:
    return ", ".join(sorted(names))
