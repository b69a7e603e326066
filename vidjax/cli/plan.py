"""The command `vidjax plan`."""

import argparse
import json
import sys

from vidjax.cli.common import add_config_argument, add_json_argument

NAME = "plan"
HELP = "Compile a training step for a slice of accelerators: does it fit, and what limits it?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, "config")
    parser.add_argument(
        "--topology",
        required=True,
        metavar="SLICE",
        help="v5e:16x16 and the like, or cpu:8, gpu:1 of this machine",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try meshes, accumulation steps and remat policies; print the best",
    )
    parser.add_argument(
        "--most", type=int, default=12, metavar="N", help="plans that a search tries (default: 12)"
    )
    parser.add_argument(
        "--limit", type=float, default=1800.0, metavar="SECONDS", help="for each compilation (default: 1800)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compile with the least effort, several times faster; the plan is then approximate",
    )
    add_json_argument(parser)
    parser.epilog = "Planning for a TPU needs `pip install 'jax[tpu]'` (its libtpu), and no TPU."


def run(args: argparse.Namespace) -> int:
    from vidjax.config import load
    from vidjax.errors import UserError
    from vidjax.plan.run import best, plan, search
    from vidjax.plan.step import Plan, text

    config = load(args.config, args.overrides)
    if not args.search:
        found = plan(config, args.topology, args.limit, args.quick)
        print(json.dumps(found.to_json(), indent=1) if args.json else text(found))
        return 0 if found.fits else 1
    plans: list[Plan] = []
    for tried in search(config, args.topology, args.limit, args.most, args.quick):
        if isinstance(tried, UserError):
            print(f"vidjax: {tried}", file=sys.stderr)
            continue
        plans.append(tried)
        print(text(tried).replace("\n", "\n  "), file=sys.stderr, flush=True)
    chosen = best(plans)
    if not chosen:
        raise UserError(
            f"none of {len(plans)} plans fits {args.topology}: use a larger slice or a smaller batch"
        )
    print(
        json.dumps([p.to_json() for p in chosen], indent=1) if args.json else "\n\n".join(map(text, chosen))
    )
    return 0
