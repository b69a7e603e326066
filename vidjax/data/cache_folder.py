"""The folder for data that vidjax can compute again."""

import os
from pathlib import Path

from vidjax.errors import UserError


def cache_dir() -> Path:
    """Returns the cache folder of vidjax: $VIDJAX_CACHE, or ~/.cache/vidjax if that is not set."""
    try:
        return Path(os.environ.get("VIDJAX_CACHE") or "~/.cache/vidjax").expanduser()
    except RuntimeError:
        raise UserError("this user has no home folder: set VIDJAX_CACHE to a folder for the cache") from None
