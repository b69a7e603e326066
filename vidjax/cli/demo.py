"""The command `vidjax demo`."""

import argparse

from etils import epath

from vidjax.cli.common import reject_overrides

NAME = "demo"
HELP = "Run a small demo: pretrain without labels, fine-tune with few, and compare."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", default="runs/demo", metavar="DIR", help="output folder (default: runs/demo)"
    )


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    from vidjax.demo import run_demo

    run_demo(epath.Path(args.workdir))
    return 0
