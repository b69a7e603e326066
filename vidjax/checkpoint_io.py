"""Reads and writes checkpoints for use outside training."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from vidjax import files
from vidjax.data.cache_folder import cache_dir
from vidjax.errors import UserError
from vidjax.layers.stacking import laid_out_as

COMMIT = "commit_success.txt"  # the last object of a checkpoint on an object store, as orbax names it


def find_checkpoint(path: epath.PathLike, which: str = "last") -> epath.Path:
    """Returns the folder of a checkpoint.

    Args:
      path: a workdir, or the folder of one checkpoint.
      which: checkpoint of a workdir: "last", "best" (by the evaluation `checkpoint.best` during training, so
        its result on that split is optimistic), or a step.

    Raises:
      UserError: the folder does not exist or has no complete checkpoint that matches `which`.
    """
    path, which = files.absolute(path), str(which)
    if which not in ("last", "best") and not _is_step(which):
        raise UserError(f"no checkpoint '{which}': choose last, best or a step such as 1000")
    if files.is_remote(path):
        files.filesystem(path)  # forgets listings, since the run may have made progress
    if not path.is_dir():
        raise UserError(f"no checkpoint at {path}: no such folder")
    if (path / "state").is_dir() and (path / "meta").is_dir():
        if not _is_complete(path):
            raise UserError(f"the checkpoint {path} is incomplete, it has no {COMMIT}: use another one")
        if which not in ("last", path.name):
            raise UserError(f"{path} is one checkpoint: pass its workdir to choose '{which}'")
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = sorted((p for p in folder.iterdir() if _is_step(p.name) and _is_complete(p)), key=_number)
    if not steps:
        raise UserError(
            f"no checkpoint in {path}: pass a workdir of `vidjax train`, or one of its checkpoints"
        )
    if which == "last":
        return steps[-1]
    if which == "best":
        scores = {p: s for p in steps if (s := _metric(p)) is not None}
        if not scores:
            raise UserError(
                f"no checkpoint in {path} was evaluated, so there is no best one: use the last one"
            )
        return max(scores, key=lambda p: (scores[p], _number(p)))
    if not (chosen := [p for p in steps if _number(p) == int(which)]):
        have = ", ".join(p.name for p in steps)
        raise UserError(f"no checkpoint of step {which} in {path}: it has {have}")
    return chosen[0]


def orbax_reads(path: epath.PathLike) -> bool:
    """Returns whether orbax reads and writes checkpoints at a path: on a local disk or on `gs://`."""
    return not files.is_remote(path) or os.fspath(path).startswith("gs://")


@contextlib.contextmanager
def readable(
    folder: epath.Path, skip: str | None = None, inside: epath.PathLike | None = None
) -> Iterator[epath.Path]:
    """Yields a folder that orbax reads: `folder`, or a temporary copy of it on the local disk.

    Args:
      folder: a checkpoint or an item of it.
      skip: the data of arrays whose path in `folder` starts so are not copied.
      inside: where the copy is made; defaults to `$VIDJAX_CACHE/checkpoints`.
    """
    if orbax_reads(folder):
        yield folder
        return
    inside = inside or cache_dir() / "checkpoints"
    os.makedirs(inside, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=inside) as copy:
        paths = files.objects(folder)
        if skip:  # of these arrays, only the shapes are read
            paths = {k: v for k, v in paths.items() if not k.startswith(skip) or k.endswith(".zarray")}
        local = [os.path.join(copy, name) for name in paths]
        files.filesystem(folder).get(list(paths.values()), local)
        yield epath.Path(copy)


def choice_text(folder: epath.Path, which: str, meta: Mapping[str, Any]) -> str:
    """Describes a checkpoint and how it was chosen, to print with a result."""
    if which != "best":
        return str(folder)
    config = meta.get("config", {})
    ranking = config.get("evals", {}).get(config.get("checkpoint", {}).get("best"), {})
    split = ranking.get("split") or config.get("data", {}).get("eval_split", "evaluation")
    return f"{folder} (best of its run on the split '{split}')"


def load_variables(path: epath.PathLike, which: str = "last") -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the variables of a checkpoint, without optimizer state.

    Args:
      path: a workdir or one checkpoint.
      which: see `find_checkpoint`.

    Returns:
      The variables for evaluation as numpy arrays (with the averaged parameters, if any), and the metadata.

    Raises:
      UserError: the checkpoint does not exist or cannot be read.
    """
    folder = find_checkpoint(path, which)
    meta = load_meta(folder)
    with reading(folder), readable(folder / "state", skip="opt_state.") as state:
        reader = ocp.PyTreeCheckpointHandler()
        tree = reader.metadata(state).tree
        params = "ema" if tree.get("ema") else "params"
        target = {k: tree[k] for k in (params, "model_state")}
        saved = reader.restore(
            state,
            args=ocp.args.PyTreeRestore(
                item=target,
                restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target),
                partial_restore=True,
            ),
        )
        return {"params": saved[params], **saved["model_state"]}, meta


def load_meta(folder: epath.PathLike) -> dict[str, Any]:
    """Reads the JSON metadata of a checkpoint: config, class names, fingerprint of the data, environment.

    Raises:
      UserError: it cannot be read.
    """
    with reading(epath.Path(folder)), readable(epath.Path(folder) / "meta") as item:
        meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(item)
        check_object(meta)
        return meta


@contextlib.contextmanager
def reading(folder: epath.PathLike, hint: str = "use another one") -> Iterator[None]:
    """Turns the errors of reading a damaged checkpoint into a one-line `UserError` that ends with `hint`."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as e:
        reason = str(e).partition("\n")[0] or type(e).__name__
        raise UserError(f"cannot read the checkpoint {folder} ({reason}): {hint}") from e


def check_object(meta: Any) -> None:
    """Raises `ValueError` unless the metadata of a checkpoint is a JSON object."""
    if not isinstance(meta, Mapping):
        raise ValueError("its metadata is not a JSON object")


def check_meta(meta: Mapping[str, Any], folder: epath.PathLike, *keys: str) -> None:
    """Raises `UserError` unless the metadata of a checkpoint has `keys`."""
    if missing := [key for key in keys if key not in meta]:
        raise UserError(f"the metadata of checkpoint {folder} lacks {', '.join(missing)}: use another one")


def save_variables(path: epath.PathLike, variables: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Atomically writes a checkpoint for `load_variables`.

    Args:
      path: a folder that does not exist yet.
      variables: "params" and the other collections of the model.
      meta: JSON metadata; `vidjax predict` requires "config" and "class_names".

    Raises:
      UserError: the folder exists or cannot be written.
    """
    path = files.absolute(path)
    if not orbax_reads(path):
        raise UserError(f"cannot write the checkpoint {path}: use a local or gs:// folder, and copy it")
    if path.exists():
        raise UserError(f"{path} exists: use another folder, or remove it")
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
    """Replaces every array of `fresh` by the array of `loaded` at the same path.

    Args:
      fresh: newly initialized variables of the model; arrays that are replaced may be abstract.
      loaded: variables of a checkpoint; blocks may be stacked in one tree and separate in the other.
      skip: regexes of paths, such as "params/head", that keep their values in `fresh`.
      source: where `loaded` came from, for the error message.

    Raises:
      UserError: lists every path that is in one tree only, and every shape that differs.
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
            f"the checkpoint {source} does not fit the model ({len(problems)} differences; list "
            f"paths that may differ in init.skip): " + "; ".join(problems)
        )

    def choose(key, x):
        return x if key in kept else jax.device_put(np.asarray(theirs[key], x.dtype), x.sharding)

    return unflatten_dict({key: choose(key, x) for key, x in ours.items()}, sep="/")


def check_skip(fresh: Mapping[str, Any], loaded: Mapping[str, Any], skip: Sequence[str], source: str) -> None:
    """Raises `UserError` for a regex of `init.skip` that matches no path in `merge_variables`."""
    paths = {*flatten_dict(fresh, sep="/"), *flatten_dict(laid_out_as(fresh, loaded), sep="/")}
    for pattern in skip:
        if not any(re.search(pattern, path) for path in paths):
            modules = sorted({"/".join(path.split("/")[:2]) for path in paths})
            more = f" and {len(modules) - 12} more" if len(modules) > 12 else ""
            raise UserError(
                f"init.skip: {pattern!r} matches no parameter of the model or of the checkpoint {source}: "
                f"remove it, or name some of {', '.join(modules[:12])}{more}"
            )


def merge_report(fresh: Mapping[str, Any], loaded: Mapping[str, Any], skip: Sequence[str]) -> str:
    """Summarizes `merge_variables` in one line: how many arrays are loaded, initialized and dropped.

    The modules of initialized and dropped arrays are listed.
    """
    ours, theirs = (flatten_dict(x, sep="/") for x in (fresh, laid_out_as(fresh, loaded)))
    kept = {k for k in ours.keys() | theirs.keys() if any(re.search(s, k) for s in skip)}
    return "; ".join(
        f"{what} {len(keys)} arrays{_modules(keys) if what != 'loaded' else ''}"
        for what, keys in (
            ("loaded", ours.keys() & theirs.keys() - kept),
            ("initialized", ours.keys() & kept),
            ("dropped", theirs.keys() & kept),
        )
    )


def _modules(keys: Iterable[str]) -> str:
    """Formats the modules of parameter paths, without block numbers, as " (head, decoder_block)"."""
    names = sorted({re.sub(r"\d+$", "", key.split("/")[1]) for key in keys})
    return f" ({', '.join(names)})" if names else ""


def _is_complete(folder: epath.Path) -> bool:
    """Returns whether all of a checkpoint was written. On local disks, incomplete ones have other names."""
    return (folder / "state").is_dir() and (not files.is_remote(folder) or (folder / COMMIT).exists())


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _number(path: epath.Path) -> int:
    return int(path.name)


def _metric(path: epath.Path) -> float | None:
    file = path / "metrics" / "metrics"
    with reading(path, "choose the last one or a step"):
        return float(json.loads(file.read_text())["metric"]) if file.is_file() else None
