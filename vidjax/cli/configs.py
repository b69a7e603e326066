"""The command `vidjax configs`."""

import argparse
import json

from vidjax.cli.common import add_json_argument, reject_overrides
from vidjax.errors import UserError

NAME = "configs"
HELP = "List the shipped configs with their model, dataset and expected top-1 accuracy."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pattern", nargs="?", default="*", help='shell pattern of names, such as "kinetics400/*"'
    )
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    from vidjax.config import load, shipped_names

    rows = []
    for name in shipped_names(args.pattern):
        config = load(name)
        rows.append(
            {
                "config": name,
                "model": config.model.name,
                "dataset": name.split("/")[0],
                "top1": config.expected.top1,
                "source": config.expected.source,
            }
        )
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        raise UserError(f"no config matches '{args.pattern}': run `vidjax configs` to list all configs")
    widths = [max(len(r[key]) for r in rows) for key in ("config", "model", "dataset")]
    for r in rows:
        cells = (f"{r[key]:{w}}" for key, w in zip(("config", "model", "dataset"), widths))
        top1 = f"{r['top1']:5.1f}" if r["top1"] is not None else "    –"
        print(*cells, top1, r["source"].partition(";")[0], sep="  ")
    return 0
