"""The `vidjax` command line: one module per command, arguments and output only."""

import argparse
import contextlib
import ctypes
import logging
import os
import sys
import traceback

from absl import logging as absl_logging

from vidjax import interrupts
from vidjax.cli import (
    audit,
    config,
    configs,
    convert,
    data,
    demo,
    describe,
    evaluate,
    export,
    features,
    fuse,
    models,
    pick,
    plan,
    predict,
    probe,
    report,
    sweep,
    train,
    views,
)
from vidjax.cli.common import check_empty, parse_overrides
from vidjax.errors import DiskFull, MemoryErrors, UserError

# In the order of --help. Each module has NAME, HELP, add_arguments(parser) and run(args) -> exit code.
COMMANDS = (
    train,
    sweep,
    plan,
    evaluate,
    report,
    views,
    fuse,
    predict,
    features,
    probe,
    data,
    audit,
    configs,
    config,
    models,
    pick,
    describe,
    convert,
    export,
    demo,
)
_STORES = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "gcsfs",
    "google",
}  # whose errors are those of s3:// and gs://
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # from <malloc.h>


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits: code 0 on success, 2 with a one-line message on a `UserError`."""
    argv = sys.argv[1:] if argv is None else argv
    _keep_freed_memory()
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(_should_log)
    for name in ("jax", "matplotlib"):  # matplotlib warns where there is no home folder
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("asyncio", "concurrent.futures"):  # a failed save is also raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):  # class names may not be encodable
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    try:
        with interrupts.handled():
            args.overrides = parse_overrides(rest)
            check_empty(args)
            with MemoryErrors():
                code = args.run(args)
    except interrupts.Interrupted as e:
        interrupts.leave(e.code)
    except (Exception, SystemExit) as e:
        if interrupted := interrupts.raised():  # while a module was imported, which fails with its own error
            interrupts.leave(interrupted)
        code = _report(e)
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vidjax", description="Video understanding in JAX and Flax.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, allow_abbrev=False
        )
        sub.set_defaults(run=command.run)
        command.add_arguments(sub)
    return parser


def _report(error: BaseException) -> int:
    """Prints the error that ended the command and returns the exit code; re-raises unexpected errors."""
    hosts = sys.modules.get("vidjax.train.hosts")
    if isinstance(error, OSError) and error.filename:  # a missing, forbidden or misplaced file
        error = UserError(f"{error.strerror}: {error.filename}; use another path, or change its permissions")
    if isinstance(error, ImportError) and "install" in str(error).lower():  # of gcsfs, for gs://
        error = UserError(str(error).partition("\n")[0])
    if type(error).__module__.partition(".")[0] in _STORES:
        reason = str(error).partition("\n")[0] or type(error).__name__
        error = UserError(f"the object store failed ({reason}): check the bucket, credentials and network")
    cause = hosts.explain(error) if hosts else error
    if isinstance(cause, BrokenPipeError):  # `vidjax models | head`
        sys.stderr.close()
        return 0
    if isinstance(cause, UserError):
        print(f"vidjax: {cause}", file=sys.stderr, flush=True)
        code = getattr(cause, "code", 2)
    elif hosts and hosts.joined():
        traceback.print_exception(cause)
        code = 1
    else:
        raise cause
    if isinstance(cause, DiskFull) or (hosts and hosts.joined()):
        os._exit(code)  # exit handlers would write to the disk and wait for the other processes
    return code


def _keep_freed_memory() -> None:
    """Makes glibc reuse the memory that a step frees.

    By default glibc returns large blocks to the kernel, which zeroes them on the next allocation. This takes
    a quarter of the time of a small step on the CPU.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, size in ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26), (_M_MMAP_THRESHOLD, 2**30)):
            mallopt(option, size)


def _should_log(record: logging.LogRecord) -> bool:
    """Filters out what is expected of checkpoints, and a full disk (reported by the main thread)."""
    text = f"{record.getMessage()} {record.exc_info and record.exc_info[1]}".lower()
    staged = "object size logging disabled", "skipping merge of ocdbt"  # each host writes its own files
    return not any(s in text for s in ("tracked_metric", "save finalize", *staged, *DiskFull.SIGNS))
