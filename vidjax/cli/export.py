"""The command `vidjax export`."""

import argparse

from vidjax.cli.common import add_which_argument, reject_overrides

NAME = "export"
HELP = "Export a checkpoint in another project's weight format."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="DIR", help="a workdir, or one checkpoint")
    add_which_argument(parser)
    parser.add_argument("--to", required=True, metavar="O", help="target project: torchvision, timm, ...")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="output file")


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.convert import export_file

    checkpoint = find_checkpoint(args.checkpoint, args.which)
    print(f"{export_file(checkpoint, args.to, args.out)} as {args.to}: {args.out}")
    return 0
