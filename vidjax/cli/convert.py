"""The command `vidjax convert`."""

import argparse
import sys

from etils import epath

from vidjax.cli.common import reject_overrides
from vidjax.errors import UserError

NAME = "convert"
HELP = "Convert pretrained weights to a vidjax checkpoint."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SRC", help="weights file of another project, or a vidjax checkpoint"
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="a registered model, see `vidjax models`"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the new checkpoint")
    parser.add_argument(
        "--origin", metavar="O", help="project the weights come from, if ambiguous: torchvision, timm, ..."
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="K",
        help="number of classes; if it differs from the weights', the classifier is newly initialized",
    )
    parser.add_argument("--class-names", metavar="FILE", help="text file with one class name per line")


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    from vidjax.convert import convert_file

    names = None
    if args.class_names:
        try:
            names = epath.Path(args.class_names).read_bytes().decode().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"cannot read the class names in {args.class_names}: {e}") from None
    weights = convert_file(args.source, args.model, args.out, args.origin, args.num_classes, names)
    for note in weights.notes:
        print(f"vidjax: {note}", file=sys.stderr)
    print(f"{args.model} from {args.source} ({weights.origin}): {args.out}")
    return 0
