"""Checkpoints as arrays and their description, apart from the training that wrote them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from vidjax import files
from vidjax.errors import UserError
from vidjax.layers.stacking import laid_out_as


def find_checkpoint(path: epath.PathLike, which: str = "last") -> epath.Path:
    """Returns the folder of one checkpoint.

    Args:
      path: a workdir, or the folder of one checkpoint.
      which: of a workdir, "last", "best" (by the metric of the evaluation split during training, so its
        result on that split is optimistic), or a step.

    Raises:
      UserError: no such folder, no complete checkpoint in it, or none that `which` describes.
    """
    path, which = files.absolute(path), str(which)
    if which not in ("last", "best") and not which.isdigit():
        raise UserError(f"no checkpoint '{which}': choose last, best or a step such as 1000")
    if not path.is_dir():
        raise UserError(f"no checkpoint at {path}: no such folder")
    if (path / "state").is_dir() and (path / "meta").is_dir():
        if which not in ("last", path.name):
            raise UserError(f"{path} is one checkpoint: give its workdir to choose '{which}'")
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = sorted((p for p in folder.iterdir() if p.name.isdigit() and (p / "state").is_dir()), key=_number)
    if not steps:
        raise UserError(f"no checkpoint in {path}: give a workdir of `vidjax train`, or one step inside it")
    if which == "last":
        return steps[-1]
    if which == "best":
        scores = {p: s for p in steps if (s := _metric(p)) is not None}
        if not scores:
            raise UserError(f"no checkpoint in {path} was evaluated, so none is the best: use the last one")
        return max(scores, key=lambda p: (scores[p], _number(p)))
    if not (chosen := [p for p in steps if _number(p) == int(which)]):
        have = ", ".join(p.name for p in steps)
        raise UserError(f"no checkpoint of step {which} in {path}: it has {have}")
    return chosen[0]


def choice_text(folder: epath.Path, which: str, meta: Mapping[str, Any]) -> str:
    """How a checkpoint was chosen, as text to stand beside a result."""
    if which != "best":
        return str(folder)
    split = meta.get("config", {}).get("data", {}).get("eval_split", "evaluation")
    return f"{folder} (best of its run on the split '{split}')"


def load_variables(path: epath.PathLike, which: str = "last") -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a checkpoint for use without its optimizer.

    Args:
      path: a workdir or one checkpoint.
      which: see `find_checkpoint`.

    Returns:
      The variables to evaluate with as numpy arrays (averaged parameters where they were kept), and the meta.

    Raises:
      UserError: no checkpoint there, or one that cannot be read.
    """
    folder = find_checkpoint(path, which)
    try:
        meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "meta")
        reader = ocp.PyTreeCheckpointHandler()
        tree = reader.metadata(folder / "state").tree
        params = "ema" if tree.get("ema") else "params"
        target = {k: tree[k] for k in (params, "model_state")}
        saved = reader.restore(
            folder / "state",
            args=ocp.args.PyTreeRestore(
                item=target,
                restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target),
                partial_restore=True,
            ),
        )
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"cannot read the checkpoint {folder}: {str(e).splitlines()[0]}") from None
    return {"params": saved[params], **saved["model_state"]}, meta


def save_variables(path: epath.PathLike, variables: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Writes a checkpoint that `load_variables` reads; the folder appears only when it is complete.

    Args:
      path: a folder that does not exist.
      variables: "params" and the model's other collections.
      meta: JSON values; `vidjax predict` reads "config" and "class_names".

    Raises:
      UserError: the folder exists, or cannot be written.
    """
    path = files.absolute(path)
    if path.exists():
        raise UserError(f"{path} exists: name another folder, or remove it")
    model_state = {k: v for k, v in variables.items() if k != "params"}
    state = {"params": variables["params"], "model_state": model_state}
    handler = ocp.CompositeCheckpointHandler("state", "meta")
    try:
        with ocp.Checkpointer(handler) as writer:
            writer.save(
                path,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(dict(meta))
                ),
            )
    except OSError as e:
        raise UserError(f"cannot write the checkpoint {path}: {e.strerror or e}") from None


def merge_variables(
    fresh: Mapping[str, Any], loaded: Mapping[str, Any], skip: Sequence[str], source: str
) -> dict[str, Any]:
    """`fresh` with every array replaced by that of `loaded` at the same path.

    Args:
      fresh: variables of the model as initialised; shapes alone will do for what `loaded` replaces.
      loaded: variables of a checkpoint; equal blocks may be stacked on one side and apart on the other.
      skip: regexes of paths, such as "params/head", that keep their fresh values whatever was loaded.
      source: where `loaded` came from, for the message.

    Raises:
      UserError: listing every path that only one side has, and every shape that differs.
    """
    ours, theirs = flatten_dict(fresh, sep="/"), flatten_dict(laid_out_as(fresh, loaded), sep="/")
    kept = {k for k in ours.keys() | theirs.keys() if any(re.search(s, k) for s in skip)}
    problems = []
    for key in sorted((ours.keys() | theirs.keys()) - kept):
        if key not in theirs:
            problems.append(f"{key} {ours[key].shape}: not in the checkpoint")
        elif key not in ours:
            problems.append(f"{key} {theirs[key].shape}: not in the model")
        elif ours[key].shape != theirs[key].shape:
            problems.append(f"{key}: {theirs[key].shape} in the checkpoint, {ours[key].shape} in the model")
    if problems:
        raise UserError(
            f"the checkpoint {source} does not fit the model ({len(problems)} differences; what may differ "
            f"is named in init.skip): " + "; ".join(problems)
        )

    def choose(key, x):
        return x if key in kept else jax.device_put(np.asarray(theirs[key], x.dtype), x.sharding)

    return unflatten_dict({key: choose(key, x) for key, x in ours.items()}, sep="/")


def merge_report(fresh: Mapping[str, Any], loaded: Mapping[str, Any], skip: Sequence[str]) -> str:
    """What `merge_variables` does with its arguments, in a line: how many arrays are loaded, and of which
    modules they start afresh or are left behind."""
    ours, theirs = (flatten_dict(x, sep="/") for x in (fresh, laid_out_as(fresh, loaded)))
    kept = {k for k in ours.keys() | theirs.keys() if any(re.search(s, k) for s in skip)}
    return "; ".join(
        f"{what} {len(keys)} arrays{_modules(keys) if what != 'loaded' else ''}"
        for what, keys in (
            ("loaded", ours.keys() & theirs.keys() - kept),
            ("initialised", ours.keys() & kept),
            ("dropped", theirs.keys() & kept),
        )
    )


def _modules(keys: Iterable[str]) -> str:
    """The modules of parameters, " (head, decoder_block)": blocks of one name are named once."""
    names = sorted({re.sub(r"\d+$", "", key.split("/")[1]) for key in keys})
    return f" ({', '.join(names)})" if names else ""


def _number(path: epath.Path) -> int:
    return int(path.name)


def _metric(path: epath.Path) -> float | None:
    file = path / "metrics" / "metrics"
    return json.loads(file.read_text())["metric"] if file.is_file() else None
