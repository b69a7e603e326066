"""Paths on local disks or object stores ("gs://bucket/run"), and atomic file writes."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from etils import epath
from etils.epath import backend

from vidjax.errors import UserError

STORES = "gs://", "s3://", "az://"


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns an absolute path. Leaves URIs alone, which `resolve` would turn into local paths.

    Raises:
      UserError: a URI of an unknown kind.
    """
    if not is_remote(path):
        return epath.Path(os.path.abspath(path))
    if not os.fspath(path).startswith(STORES):
        raise UserError(f"{path}: unknown storage; use a local path or one of {', '.join(STORES)}")
    return epath.Path(path)


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is on an object store, where writes are atomic and appending is impossible."""
    return "://" in os.fspath(path)


def filesystem(path: epath.PathLike) -> Any:
    """Returns the fsspec file system that etils uses for a remote path, with its cached listings cleared."""
    system: Any = backend.fsspec_backend.fs(path)
    system.invalidate_cache()
    return system


def objects(path: epath.PathLike) -> dict[str, str]:
    """Returns the fsspec paths of the objects below a remote path, by their names relative to it."""
    root = os.fspath(path).partition("://")[2].rstrip("/") + "/"
    return {p.removeprefix(root): p for p in filesystem(path).find(root) if p.startswith(root)}


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Holds a lock on a local file, which the system releases even if the process is killed."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_rows(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads a file of JSON objects, one a line, without lines that a kill truncated; [] if it is absent."""
    path, rows = epath.Path(path), []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            rows += [row] if isinstance(row, dict) else []
    return rows


def write(path: epath.PathLike, data: str | bytes) -> None:
    """Writes a file atomically: if the process is killed, the file has either its old or its new content."""
    path = epath.Path(path)
    data = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    if is_remote(path):
        path.write_bytes(data)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
