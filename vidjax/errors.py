"""Errors that a user can cause; a command exits with code 2 and a one-line message, without traceback."""

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix. The message states what failed, the offending value, and what to do."""


class DiskFull(UserError):
    """The disk is full or read-only. Background writes have failed or will fail."""

    # Messages of the operating system, which also occur in errors of orbax and tensorstore. The status
    # RESOURCE_EXHAUSTED is ambiguous, because a device that is out of memory raises it too.
    SIGNS = ("no space left", "disk quota", "read-only file system", "file too large")


class OutOfMemory(UserError):
    """The device or the host is out of memory."""


class MemoryErrors:
    """Context manager that converts out-of-memory errors of JAX, numpy and Python to `OutOfMemory`.

    Args:
      hint: what to do about it, appended to the message.
    """

    def __init__(self, hint: str = "use a smaller batch, fewer clips at a time, or fewer or smaller frames"):
        self.hint = hint

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if memory := _requested_memory(error):
            raise OutOfMemory(f"out of memory: {memory}; {self.hint}") from error


_DEVICE_ERRORS = ("JaxRuntimeError", "XlaRuntimeError")


def _requested_memory(error: BaseException | None) -> str | None:
    """Describes the allocation that failed, or returns None if `error` is not an out-of-memory error."""
    if isinstance(error, MemoryError):
        return f"the host: {error}" if str(error) else "the host has no memory left"
    if type(error).__name__ not in _DEVICE_ERRORS or "RESOURCE_EXHAUSTED" not in str(error):
        return None
    text = str(error)
    if m := re.search(r"allocat\w*(?: request for)? (\d+) bytes", text):
        return f"the device cannot allocate {int(m[1]) / 2**30:,.1f} GiB"
    if m := re.search(r"allocat\w*(?: request for)? ([\d.]+ ?[KMGT]i?B)", text):
        return f"the device cannot allocate {m[1]}"
    if m := re.search(r"Used ([\d.]+\w) of ([\d.]+\w) (\w+)", text):  # the TPU compiler
        return f"the program needs {m[1]} of the device's {m[2]} {m[3]}"
    return text.splitlines()[0][:200]


def unknown(kind: str, name: str, options: Iterable[str]) -> UserError:
    """Returns a `UserError` for an unknown `name` of some `kind` that suggests the closest of `options`."""
    options = sorted(options)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    hint = f": one of {', '.join(options[:12])}" if options else ""
    if near:
        hint = f": did you mean {' or '.join(near)}?"
    return UserError(f"unknown {kind} '{name}'{hint}")
