"""Files of weights to checkpoints of vidjax, and back."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.checkpoint_io import load_variables, save_variables
from vidjax.convert import formats
from vidjax.convert.engine import export
from vidjax.convert.load import Weights, load, rules_for
from vidjax.environment import git_commit
from vidjax.errors import UserError
from vidjax.layers.stacking import unstack_blocks
from vidjax.registry import ModelSpec, spec


def convert_file(
    source: str | os.PathLike,
    name: str,
    out: str | os.PathLike,
    origin: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    tiny: bool = False,
) -> Weights:
    """Writes the weights of a file as a checkpoint that `vidjax predict` and `init.path` read.

    Args:
      source, name, origin, num_classes, tiny: see `load_pretrained`.
      out: folder of the checkpoint; must not exist.
      class_names: one per class; those of `source` if it is a checkpoint, else "class 0" and so on.

    Raises:
      UserError: as `load_pretrained`; or the number of names is not that of the classes.
    """
    model, variables, weights = load(name, source, num_classes, origin, tiny=tiny)
    if class_names is None:
        known = weights.meta.get("class_names", ())
        same = len(known) == model.num_classes and model.num_classes == weights.num_classes
        class_names = known if same else [f"class {i}" for i in range(model.num_classes)]
    if len(class_names) != model.num_classes:
        raise UserError(f"{len(class_names)} class names for {model.num_classes} classes")
    published = spec(weights.owner)
    ours = published.weights and published.weights.split(".")[0] in weights.origin.split(" or ")
    meta = {
        "config": _config(spec(name), tiny),
        "class_names": list(class_names),
        "source": {
            "path": str(source),
            "sha256": formats.sha256(source),
            "origin": weights.origin,
            "licence": f"{published.licence} (as published: {published.weights})" if ours else "not known",
        },
        "notes": list(weights.notes),
        "versions": {"vidjax": vidjax.__version__, "jax": jax.__version__},
        "commit": git_commit(),
    }
    save_variables(out, jax.device_get(variables), meta)
    return weights


def export_file(folder: str | os.PathLike, to: str, out: str | os.PathLike) -> str:
    """Writes a checkpoint under another project's names, as .safetensors; returns the model's name.

    Raises:
      UserError: no checkpoint there, no rules between its model and `to`, or the file cannot be written.
    """
    variables, meta = load_variables(folder)
    name = meta["config"]["model"]["name"]
    flat = flatten_dict(unstack_blocks(variables), sep="/")
    arrays = export(flat, rules_for(name, to), f"{folder} ({name}) as {to}")
    about = {"model": name, "origin": to, "licence": meta.get("source", {}).get("licence", "")}
    formats.write(pathlib.Path(out), arrays, about)
    return name


def _config(s: ModelSpec, tiny: bool) -> dict[str, Any]:
    """Enough of a config to predict with: the model's own input, and the views of its published accuracy."""
    shape = s.tiny_input_shape if tiny else s.input_shape
    streams = shape if isinstance(shape, Mapping) else {s.modality: shape}
    *frames, size, _, channels = next(iter(streams.values()))
    clips, crops = map(int, s.results[0].views.split("x")) if s.results else (1, 1)
    return {
        "epochs": 1.0,
        "data": {
            "name": "video_folder",
            "frames": frames[0] if frames else 1,
            "stride": float(s.stride),
            "target_fps": s.fps,
            "size": size,
            "short_side": size * 8 // 7,  # 256 for 224, 128 for 112
            "crop": "center",
            "grey": channels == 1,
            "modality": s.modality,
            "flow": {"frames": streams["flow"][0]} if "flow" in streams else {},
        },
        "model": {"name": s.name, "tiny": tiny},
        "evals": {"clips": clips, "crops": crops},
    }
