"""Optimizers, parameter groups and learning-rate schedules."""

import bisect
import dataclasses
import difflib
import functools
import heapq
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vidjax.errors import UserError, unknown
from vidjax.sharding import path_name


def peak_lr(config: ConfigDict) -> float:
    """Returns the learning rate after warmup: `lr`, or `lr * batch / lr_batch` (Goyal et al., 1706.02677)."""
    rule = config.optimizer.lr_batch
    return config.optimizer.lr * (config.batch / rule if rule else 1.0)


def create_schedule(config: ConfigDict, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Creates a learning-rate schedule over `steps` updates, with linear warmup.

    Raises:
      UserError: warmup is not shorter than training.
    """
    c, peak = config.schedule, peak_lr(config)
    warmup = round(c.warmup_epochs * steps_per_epoch)
    if warmup >= steps:
        raise UserError(f"schedule.warmup_epochs takes {warmup} of {steps} steps: lower it or train longer")
    if c.name == "cosine":
        after = optax.cosine_decay_schedule(peak, steps - warmup, alpha=c.end_lr)
    elif c.name == "step":
        milestones = [round(m * steps_per_epoch) - warmup for m in c.milestones]
        after = optax.piecewise_constant_schedule(peak, dict.fromkeys(milestones, c.factor))
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(peak * c.warmup_lr, peak, warmup), after], [warmup])


def create_optimizer(
    config: ConfigDict, schedule: optax.Schedule, frozen: str | None = None
) -> optax.GradientTransformation:
    """Creates the optimizer, with gradient clipping and the groups of `param_groups`.

    SGD adds the weight decay to the gradient before momentum, as PyTorch does; AdamW decouples it (Loshchilov
    & Hutter, arXiv:1711.05101). RMSProp follows TensorFlow: `eps` is inside the square root, and the weight
    decay is added to the gradient. Learning-rate scales apply to the whole update, including weight decay.

    Checkpoints depend on the structure of the optimizer state: all transforms except the update rule are
    stateless, and their positions in the chain depend only on which options are set.
    """
    c, settings = config.optimizer, [settings for _, _, settings in _entries(config)]
    clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
    momentum = optax.trace(c.momentum, c.nesterov) if c.momentum else optax.identity()
    decay = _weight_decay(config, frozen)
    if c.name == "sgd":
        rule = optax.chain(decay, momentum)
    elif c.name == "rmsprop":
        rule = optax.chain(decay, optax.scale_by_rms(c.b2, c.eps), momentum)
    else:
        rule = optax.chain(optax.scale_by_adam(c.b1, c.b2, c.eps), decay)
    chain = [clip, clip_each(c.clip_each) if c.clip_each else optax.identity(), rule]
    if c.layer_decay is not None or c.trunk_lr is not None or any("lr" in s for s in settings):
        chain.append(_scale_by_group(config))
    chain.append(optax.scale_by_learning_rate(schedule))
    # Last, because weight decay also changes parameters without gradient.
    if frozen or any(s.get("frozen") for _, _, s in c.groups):
        chain.append(optax.masked(optax.set_to_zero(), lambda params: frozen_params(config, params, frozen)))
    tx = optax.chain(*chain)

    def init(params: Any) -> Any:
        param_groups(config, params, frozen)  # raises if a pattern matches no parameter
        return tx.init(params)

    return optax.GradientTransformationExtraArgs(init, tx.update)


@dataclasses.dataclass(frozen=True)
class Group:
    """The update settings of a parameter.

    Attributes:
      name: name of its entry in `optimizer.groups`, or None.
      weight_decay: weight decay.
      lr: learning-rate factor; an array [L] for the layers of stacked blocks.
      frozen: whether the parameter is frozen.
    """

    name: str | None
    weight_decay: float
    lr: float | np.ndarray
    frozen: bool


def param_groups(config: ConfigDict, params: Any, frozen: str | None = None) -> Any:
    """Returns a tree like `params` with the `Group` of each parameter.

    By default, biases and norms (parameters with fewer than two axes per layer) have no weight decay unless
    `decay_all` is set, and `trunk_lr` and `layer_decay` scale learning rates by depth. `optimizer.groups`
    contains entries (name, regex, settings); a parameter belongs to the first entry whose regex matches its
    path. The setting `weight_decay` replaces the default, `lr` multiplies the learning rate, and
    `frozen=True` freezes the parameters (but not the running statistics of BatchNorm, see `model.freeze_bn`).

    Args:
      config: the resolved config.
      params: a tree of arrays or abstract arrays.
      frozen: regex of the paths of further frozen parameters.

    Raises:
      UserError: an invalid regex or one that leaves its group empty, an unknown setting, `layer_decay` for a
        model without ordered blocks, or `trunk_lr` for a model without a classifier.
    """
    c = config.optimizer
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    members = _members(config, names)
    scales = jax.tree.leaves(_depth_scales(config, params))

    def group(i: int, name: str, x: Any) -> Group:
        key, settings = members.get(name, (None, {}))
        default = c.weight_decay if c.decay_all or _own_rank(name, x) > 1 else 0.0
        return Group(
            name=key,
            weight_decay=settings.get("weight_decay", default),
            lr=scales[i] * settings.get("lr", 1.0),
            frozen=bool(settings.get("frozen", False) or (frozen and re.search(frozen, name))),
        )

    leaves, structure = jax.tree.flatten(params)
    return jax.tree.unflatten(structure, [group(i, n, x) for i, (n, x) in enumerate(zip(names, leaves))])


def frozen_params(config: ConfigDict, params: Any, frozen: str | None = None) -> Any:
    """Returns a tree like `params` of bools: whether each parameter is frozen."""
    return jax.tree.map(lambda g: g.frozen, param_groups(config, params, frozen))


def groups_text(config: ConfigDict, params: Any, frozen: str | None = None) -> str:
    """Summarizes the parameter groups with parameter counts in one line. `params` may be abstract."""
    c, scales = config.optimizer, []
    counts: Counter[str] = Counter()
    named: Counter[str] = Counter()
    groups = jax.tree.leaves(param_groups(config, params, frozen))
    for x, group in zip(jax.tree.leaves(params), groups):
        size = math.prod(x.shape)
        counts["frozen" if group.frozen else "decayed" if group.weight_decay else "not decayed"] += size
        named[group.name] += size
        if not group.frozen:
            scales.append(np.asarray(group.lr))
    line = ", ".join(f"{counts[k]:,} {k}" for k in ("decayed", "not decayed", "frozen") if counts[k])
    line = f"parameters: {line}"
    low, high = min((x.min() for x in scales), default=1), max((x.max() for x in scales), default=1)
    if (low, high) != (1, 1):
        line += f"; learning-rate scales {low:.3g} to {high:.3g}"
    shown = (
        f"{name} {named[name]:,} ({', '.join(f'{k}={v}' for k, v in settings.items())})"
        for name, _, settings in _entries(config)
    )
    return line + (f"; {len(c.groups)} groups: {', '.join(shown)}" if c.groups else "")


_SETTINGS = {"weight_decay": (int, float), "lr": (int, float), "frozen": (bool,)}


def _entries(config: ConfigDict) -> list[tuple[str, str, dict[str, Any]]]:
    """Returns the checked entries (name, regex, settings) of `optimizer.groups`."""
    entries = []
    for entry in config.optimizer.groups:
        if len(entry) != 3 or not isinstance(entry[2], Mapping | ConfigDict):
            raise UserError(
                f"optimizer.groups has the entry {entry!r}: write (name, regex, settings), for example "
                "('positions', 'pos_embed', {'weight_decay': 0.0})"
            )
        name, pattern, settings = entry[0], entry[1], dict(entry[2])
        for key, value in settings.items():
            if key not in _SETTINGS:
                raise unknown(f"setting of '{name}' in optimizer.groups", key, _SETTINGS)
            if not isinstance(value, _SETTINGS[key]) or (key != "frozen" and isinstance(value, bool)):
                kind = "True or False" if key == "frozen" else "a number"
                raise UserError(f"optimizer.groups: {key} of '{name}' is {value!r}; use {kind}")
            if not 0 <= value < math.inf:
                raise UserError(f"optimizer.groups: {key} of '{name}' is {value!r}; use a number from 0 up")
        try:
            re.compile(pattern)
        except re.error as e:
            raise UserError(f"optimizer.groups: '{pattern}' is not a regular expression: {e}") from None
        entries.append((name, pattern, settings))
    return entries


def _members(config: ConfigDict, names: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns {path: (name, settings)} of the parameters that belong to an entry of `optimizer.groups`."""
    found: dict[str, tuple[str, dict]] = {}
    for group, pattern, settings in _entries(config):
        matched = [name for name in names if re.search(pattern, name)]
        if not matched:
            raise UserError(
                f"optimizer.groups: '{pattern}' of '{group}' matches no parameter; the nearest paths are "
                f"{', '.join(_nearest(pattern, names))}"
            )
        new = [name for name in matched if name not in found]
        if not new:
            taken = ", ".join(sorted({found[name][0] for name in matched}))
            raise UserError(
                f"optimizer.groups: every parameter that '{pattern}' of '{group}' matches belongs to the "
                f"earlier {taken}: put '{group}' first"
            )
        found |= dict.fromkeys(new, (group, settings))
    return found


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """Returns the three paths that have a part most similar to `pattern`."""
    plain = re.sub(r"[^\w/]", "", pattern)

    def similarity(name: str) -> float:
        parts = {name, *name.split("/")}
        return max(difflib.SequenceMatcher(None, plain, part).ratio() for part in parts)

    return heapq.nlargest(3, names, key=similarity)


# Blocks stacked for a scan, see `vidjax.layers.stacking`; axis 0 of their arrays is the layer.
_STACKED = re.compile(r"(^|/)\w*blocks/")


def _own_rank(name: str, x: Any) -> int:
    """Returns the number of axes of a parameter, without the layer axis of stacked blocks."""
    return x.ndim - bool(_STACKED.search(name))


def _weight_decay(config: ConfigDict, frozen: str | None) -> optax.GradientTransformation:
    c = config.optimizer
    values = {c.weight_decay, *(s.get("weight_decay", 0.0) for _, _, s in _entries(config))} - {0}
    if c.decay_all and not c.groups:
        return optax.add_decayed_weights(c.weight_decay) if c.weight_decay else optax.identity()

    def mask(value: float, params: Any) -> Any:
        return jax.tree.map(lambda g: g.weight_decay == value, param_groups(config, params, frozen))

    decays = [optax.add_decayed_weights(v, functools.partial(mask, v)) for v in sorted(values)]
    return decays[0] if len(decays) == 1 else optax.chain(*decays) if decays else optax.identity()


def clip_each(bound: float) -> optax.GradientTransformation:
    """Clips the Euclidean norm of each tensor's gradient to `bound` (the `clipnorm` of Keras).

    Each layer of stacked blocks is clipped separately.
    """

    def clip(path: tuple, g: jax.Array) -> jax.Array:
        axes = tuple(range(g.ndim - _own_rank(path_name(path), g), g.ndim))
        norm = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(g)), axes, keepdims=True))
        return g * jnp.minimum(1.0, bound / jnp.maximum(norm, 1e-12)).astype(g.dtype)

    return optax.stateless(lambda grads, params: jax.tree_util.tree_map_with_path(clip, grads))


def _scale_by_group(config: ConfigDict) -> optax.GradientTransformation:
    def scale(x: jax.Array, group: Group) -> jax.Array:
        factor = jnp.asarray(group.lr, x.dtype)
        return x * factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim))

    return optax.stateless(
        lambda updates, params: jax.tree.map(scale, updates, param_groups(config, updates))
    )


def _depth_scales(config: ConfigDict, params: Any) -> Any:
    """Returns a tree of learning-rate factors for `layer_decay` and `trunk_lr`.

    The factor is `layer_decay ** (number of layers above)`, multiplied by `trunk_lr` for all parameters
    except the classifier. Source: Clark et al., ELECTRA, arXiv:2003.10555, section 3.1, as used for
    fine-tuning masked autoencoders.
    """
    c, model = config.optimizer, config.model.name
    layers, top = jax.tree.map(lambda _: 0, params), 0
    if c.layer_decay is not None:
        layers, top = layer_ids(params, model)
    head = jax.tree_util.tree_map_with_path(lambda path, _: bool(_HEAD.search(path_name(path))), params)
    if c.trunk_lr is not None and len(set(jax.tree.leaves(head))) == 1:
        what = "only a classifier" if jax.tree.leaves(head)[0] else "no classifier 'head'"
        raise UserError(f"optimizer.trunk_lr does not fit {model}, which has {what}: leave it out")
    decay, trunk = (1.0 if x is None else x for x in (c.layer_decay, c.trunk_lr))
    return jax.tree.map(lambda layer, head: decay ** (top - layer) * (1.0 if head else trunk), layers, head)


_HEAD = re.compile(r"(^|/)head/")
_BLOCK = re.compile(
    r"(?:^|/)(?:slow_|fast_|time_|decoder_)?"
    r"(?:stage(?P<stage>\d+)_(?:block|nonlocal)(?P<number>\d+)|block(?P<single>\d+)|(?P<stacked>blocks))/"
)
# Modules after the blocks of a stage (SlowFast), and before them (Swin).
_STAGE_END, _STAGE_START = re.compile(r"(?:^|/)lateral_stage(\d+)/"), re.compile(r"(?:^|/)stage(\d+)_merge/")
_FIRST = re.compile(
    r"(^|/)((slow_|fast_|lateral_)?stem|patch_|embed_norm|time_embed|type_embed|mask_token|decoder_embed|"
    r"(time_|decoder_)?(pos_embed|cls_token))"
)
# A second encoder or a decoder, whose blocks follow all blocks of the first encoder.
_SECOND = re.compile(r"^(decoder_|mask_token|time_(block|norm|cls_token|pos_embed))")
_UNORDERED = re.compile(r"(^|[/_])(stage|block)s?\d*([/_]|$)")


def layer_ids(params: Any, model: str) -> tuple[Any, int]:
    """Returns the layer index of each parameter, for layer decay, and the index of the top layer.

    Modules before the blocks (patch and position embeddings, stem) are layer 0, the blocks are layers 1, 2,
    ... in the order of computation, and modules after them (last norm, head) are the top layer. Blocks of
    parallel streams (SlowFast pathways, two-stream networks) share layer indices. The blocks of a second
    encoder (ViViT factorized encoder, VTN) or of a decoder follow those of the first. Modules between two
    blocks belong to the layer below.

    Args:
      params: a tree of arrays or abstract arrays.
      model: name of the model, for error messages.

    Returns:
      A tree of layer indices, with arrays [L] for stacked blocks, and the index of the top layer.

    Raises:
      UserError: the model has no numbered blocks, or blocks whose order is unknown.
    """
    flat = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    in_trunk = {name.startswith("trunk/") for name in flat if _BLOCK.search(name)}

    def phase(name: str) -> int:
        return int(not name.startswith("trunk/") if len(in_trunk) == 2 else bool(_SECOND.search(name)))

    def keys(name: str, x: Any) -> list[tuple]:
        """Returns the position (phase, stage, number) of a parameter, one per layer of stacked blocks."""
        if _HEAD.search(name):
            return [(math.inf, math.inf, math.inf)]
        m, p = _BLOCK.search(name), phase(name)
        if m and m["stacked"]:
            return [(p, 0, i) for i in range(x.shape[0])]
        if m:
            return [(p, int(m["stage"] or 0), int(m["number"] or m["single"] or 0))]
        if m := _STAGE_END.search(name):
            return [(p, int(m[1]), math.inf)]
        if m := _STAGE_START.search(name):
            return [(p, int(m[1]), -1)]
        if _FIRST.search(name):
            return [(p, -1, -1)]
        if _UNORDERED.search(name):
            raise UserError(f"optimizer.layer_decay: the depth of {name} in {model} is unknown; {_INSTEAD}")
        return [(p, math.inf, math.inf)]

    places = {name: keys(name, x) for name, x in flat.items()}
    blocks = sorted({key for name, found in places.items() if _BLOCK.search(name) for key in found})
    if not blocks:
        raise UserError(f"optimizer.layer_decay: {model} has no numbered blocks; {_INSTEAD}")
    top, last = len(blocks) + 1, (blocks[-1][0], math.inf, math.inf)

    def layer(path: tuple, _: Any) -> int | np.ndarray:
        name = path_name(path)
        ids = [top if key >= last else bisect.bisect_right(blocks, key) for key in places[name]]
        return np.array(ids) if _STACKED.search(name) else ids[0]

    return jax.tree_util.tree_map_with_path(layer, params), top


_INSTEAD = "leave it out, or scale learning rates with optimizer.groups"
