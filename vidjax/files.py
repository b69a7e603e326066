"""Paths on local disks or object stores ("gs://bucket/run"), and atomic file writes."""

import os

from etils import epath


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns an absolute path. Leaves URIs alone, which `resolve` would turn into local paths."""
    path = epath.Path(path)
    return path if is_remote(path) else epath.Path(os.path.abspath(path))


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is on an object store, where writes are atomic and appending is impossible."""
    return "://" in os.fspath(path)


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
