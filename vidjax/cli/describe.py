"""The command `vidjax describe`."""

import argparse
import json

from vidjax.cli.common import add_json_argument, reject_overrides

NAME = "describe"
HELP = "Print a model's parameters, GMACs, memory, layers and published results."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a registered model, see `vidjax models`")
    parser.add_argument("--frames", type=int, metavar="T", help="frames of the input (default: as published)")
    parser.add_argument(
        "--size", type=int, metavar="S", help="height and width of the input (default: as published)"
    )
    parser.add_argument("--classes", type=int, metavar="K", help="number of classes (default: as published)")
    parser.add_argument(
        "--depth", type=int, default=1, metavar="N", help="levels of submodules to list (default: 1)"
    )
    parser.add_argument(
        "--memory", action="store_true", help="compile a training step and print the memory it needs"
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    import vidjax.models  # noqa: F401
    from vidjax.analysis.describe import describe, page

    row = describe(
        args.name,
        frames=args.frames,
        size=args.size,
        num_classes=args.classes,
        depth=args.depth,
        memory=args.memory,
    )
    if args.json:
        print(json.dumps(row, indent=1))
    else:
        from rich.console import Console

        Console(soft_wrap=True, highlight=False).print(page(row))
    return 0
