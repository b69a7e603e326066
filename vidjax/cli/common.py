"""Arguments, checks and output that several commands share."""

import argparse
from typing import Any

from etils import epath

from vidjax.errors import UserError

HOST_TIMEOUT = 60.0  # seconds, for commands without a config; see parallel.host_timeout


def add_config_argument(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    text = (
        "config file or name of a shipped config (see `vidjax configs`); ARG is its argument, such as smoke"
    )
    parser.add_argument(name, metavar="FILE.py[:ARG]", help=text, **options)


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="a workdir, or one checkpoint in it"
    )
    add_which_argument(parser)


def add_which_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--which",
        default="last",
        metavar="last|best|STEP",
        help="which checkpoint of a workdir: last (default), best (by the evaluation checkpoint.best "
        "during training), or a step number",
    )


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("multiple hosts (run the same command on each)")
    group.add_argument("--distributed", action="store_true", help="join the other hosts of a pod or cluster")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, if not detected")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes, if not detected")
    group.add_argument("--process", type=int, metavar="I", help="index of this process, if not detected")


def join_hosts(args: argparse.Namespace, timeout: float) -> None:
    if args.distributed:
        from vidjax.train import hosts

        hosts.join(args.coordinator, args.processes, args.process, timeout)
    elif any(x is not None for x in (args.coordinator, args.processes, args.process)):
        raise UserError("--coordinator, --processes and --process are for --distributed: add it")


def parse_overrides(rest: list[str]) -> list[str]:
    """Parses overrides: ["--config.a=1", "--config.b", "2"] -> ["a=1", "b=2"]."""
    found, rest = [], list(rest)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--config."):
            raise UserError(f"unknown argument '{flag}': see vidjax COMMAND --help")
        text = flag.removeprefix("--config.")
        if "=" not in text and rest and not rest[0].startswith("--"):
            text += "=" + rest.pop(0)
        found.append(text)
    return found


def reject_overrides(args: argparse.Namespace) -> None:
    if args.overrides:
        raise UserError("this command does not accept --config.KEY arguments")


def check_empty(args: argparse.Namespace) -> None:
    """Raises `UserError` for an empty argument, which as a path would be the current folder."""
    for name, value in vars(args).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"the argument '{name.replace('_', '-')}' is empty: is a shell variable unset?")


def results_folder(path: epath.PathLike) -> epath.Path:
    """Creates a folder for results."""
    path = epath.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot create the folder {path}: {e.strerror or e}") from None
    return path


def is_lead() -> bool:
    """Returns whether this process prints and writes on behalf of all hosts."""
    import jax

    return jax.process_index() == 0


def print_metrics(metrics: dict[str, float]) -> None:
    for key, value in metrics.items():
        print(f"{key:20} {value:.4f}")
