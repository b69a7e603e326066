"""Errors that a person can cause: one clear line, exit code 2, no traceback."""

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something the person running vidjax can mend. The message names the thing and says what to do."""


class DiskFull(UserError):
    """Nothing more can be written; background writers have failed, or will."""

    # As the operating system words it, also within the messages of orbax and tensorstore. Their status
    # RESOURCE_EXHAUSTED is no sign: a device that is out of memory has it too.
    SIGNS = ("no space left", "disk quota", "read-only file system", "file too large")


class OutOfMemory(UserError):
    """The device or the host does not have the memory that was asked for."""


class MemoryErrors:
    """Turns what JAX, numpy and Python raise without memory into an `OutOfMemory` of one line.

    Args:
      hint: what to do, for the end of the line.
    """

    def __init__(self, hint: str = "use a smaller batch, fewer clips at a time, or fewer or smaller frames"):
        self.hint = hint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if memory := _memory_asked(error):
            raise OutOfMemory(f"out of memory: {memory}; {self.hint}") from error


_DEVICE_ERRORS = ("JaxRuntimeError", "XlaRuntimeError")


def _memory_asked(error: BaseException | None) -> str | None:
    """Returns what an error asked for if it is one of memory, else None."""
    if isinstance(error, MemoryError):
        return f"the host: {error}" if str(error) else "the host has none left"
    if type(error).__name__ not in _DEVICE_ERRORS or "RESOURCE_EXHAUSTED" not in str(error):
        return None
    text = str(error)
    if m := re.search(r"allocat\w*(?: request for)? (\d+) bytes", text):
        return f"the device was asked for {int(m[1]) / 2**30:,.1f} GiB"
    if m := re.search(r"allocat\w*(?: request for)? ([\d.]+ ?[KMGT]i?B)", text):
        return f"the device was asked for {m[1]}"
    if m := re.search(r"Used ([\d.]+\w) of ([\d.]+\w) (\w+)", text):  # the compiler for TPU
        return f"the program needs {m[1]} of the device's {m[2]} {m[3]}"
    return text.splitlines()[0][:200]


def unknown(kind: str, name: str, options: Iterable[str]) -> UserError:
    """A `UserError` for a misspelt `name` of some `kind`, with the nearest of the valid `options`."""
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    hint = f": one of {', '.join(options[:12])}" if options else ""
    if near:
        hint = f": did you mean {' or '.join(near)}?"
    return UserError(f"unknown {kind} '{name}'{hint}")
