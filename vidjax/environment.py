"""Software versions and hardware, recorded with results."""

import datetime
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections import Counter


def environment() -> dict[str, str]:
    """Returns the date, versions, commit, host and devices as text. Initializes the JAX backend."""
    import jax

    devices = Counter(f"{d.device_kind} ({d.platform})" for d in jax.devices())
    versions = {
        name: importlib.metadata.version(name) for name in ("vidjax", "jax", "jaxlib", "flax", "numpy")
    }
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git_commit(),
        "python": platform.python_version(),
        **versions,
        "devices": ", ".join(f"{n} × {kind}" for kind, n in devices.items()),
        "hosts": str(jax.process_count()),
        "host CPUs": str(os.cpu_count()),
        "platform": platform.platform(),
    }


@functools.cache  # the imported code does not change during the process
def git_commit() -> str:
    """Returns the commit of vidjax, with "+changes" if tracked files are modified.

    Without a repository, as in a container, it is that of the variable VIDJAX_COMMIT, or "unknown".
    """
    here = pathlib.Path(__file__)

    def git(*args: str) -> str:
        command = ["git", "-C", str(here.parent), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        # If vidjax is installed inside another repository, this file is untracked and the commit is not ours.
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("VIDJAX_COMMIT") or "unknown"


@functools.cache
def digest_of_modules() -> str:
    """Returns a digest of the code of vidjax, whether or not it is under version control."""
    folder = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]
