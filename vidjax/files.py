"""Paths that may be URIs of an object store ("gs://b/run"), and files that are never seen half-written."""

import os

from etils import epath


def absolute(path: epath.PathLike) -> epath.Path:
    """An absolute path; `pathlib` and `epath` would turn "gs://b" into a local one."""
    path = epath.Path(path)
    return path if is_remote(path) else epath.Path(os.path.abspath(path))


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is on an object store, where a file appears whole and cannot be appended to."""
    return "://" in os.fspath(path)


def write(path: epath.PathLike, data: str | bytes) -> None:
    """Writes a file that has either its old or its new content, whatever is killed in between."""
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
