"""Conversion between weight files and vidjax checkpoints."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict

from vidjax.checkpoint_io import check_meta, load_variables, save_variables
from vidjax.convert import formats
from vidjax.convert.engine import export
from vidjax.convert.load import Weights, load, rules_for
from vidjax.convert.packages import locate
from vidjax.convert.preprocessing import of_spec
from vidjax.convert.published import licence
from vidjax.environment import environment
from vidjax.errors import UserError
from vidjax.layers.stacking import unstack_blocks
from vidjax.registry import spec


def convert_file(
    source: str | os.PathLike,
    name: str,
    out: str | os.PathLike,
    origin: str | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    tiny: bool = False,
    options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Weights:
    """Converts a weight file to a checkpoint that `vidjax predict` and `init.path` can read.

    Args:
      source, name, origin, num_classes, tiny: see `load_pretrained`.
      out: folder of the checkpoint, which must not exist.
      class_names: one per class; defaults to those of `source` if it is a checkpoint, else "class 0", ...
      options: model fields that differ from those of the source's other weights.
      config: config of the checkpoint; None evaluates under the protocol of the published accuracy.

    Returns:
      The converted weights.

    Raises:
      UserError: as in `load_pretrained`, or the number of names differs from the number of classes.
    """
    source = locate(source)
    model, variables, weights = load(name, source, num_classes, origin, tiny=tiny, **(options or {}))
    if class_names is None:
        known = weights.meta.get("class_names", ())
        same = len(known) == model.num_classes and model.num_classes == weights.num_classes
        class_names = known if same else [f"class {i}" for i in range(model.num_classes)]
    if len(class_names) != model.num_classes:
        raise UserError(f"{len(class_names)} class names for {model.num_classes} classes")
    found = formats.sha256(source)
    meta = {
        "config": _config(name, tiny, weights) if config is None else dict(config),
        "class_names": list(class_names),
        "source": {
            "path": str(source),
            "sha256": found,
            "origin": weights.origin,
            "preprocessing": weights.preprocessing.source if weights.preprocessing else "",
            "licence": licence(weights.origin, weights.owner, found) or "not known",
        },
        "notes": list(weights.notes),
        "environment": environment(),
    }
    save_variables(out, jax.device_get(variables), meta)
    return weights


def export_file(folder: str | os.PathLike, to: str, out: str | os.PathLike) -> str:
    """Exports a checkpoint with another project's parameter names, as .safetensors.

    Args:
      folder: the checkpoint.
      to: the project, one of `ORIGINS`.
      out: the file to write.

    Returns:
      The name of the model.

    Raises:
      UserError: there is no checkpoint, `to` has no rules for its model, or the file cannot be written.
    """
    variables, meta = load_variables(folder)
    check_meta(meta, folder, "config")
    name = meta["config"]["model"]["name"]
    flat = flatten_dict(unstack_blocks(variables), sep="/")
    arrays = export(flat, rules_for(name, to), f"{folder} ({name}) as {to}")
    about = {"model": name, "origin": to, "licence": meta.get("source", {}).get("licence", "")}
    formats.write(out, arrays, about)
    return name


def _config(name: str, tiny: bool, weights: Weights) -> dict[str, Any]:
    """Returns the config for evaluation and prediction under the protocol of the published accuracy."""
    saved = weights.meta.get("config", {})
    if saved.get("model", {}).get("name") == name:
        return saved
    found = weights.preprocessing
    if found is None or weights.owner != name:
        statistics = dict(mean=found.mean, std=found.std) if found else {}  # those of the backbone's weights
        found = dataclasses.replace(of_spec(spec(name)), **statistics)
    sections = found.sections(spec(name), tiny)
    return {"epochs": 1.0, **sections, "data": {"name": "video_folder", **sections["data"]}}
