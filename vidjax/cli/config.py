"""The command `vidjax config`."""

import argparse
import json

from vidjax.cli.common import add_config_argument, add_json_argument

NAME = "config"
HELP = "Print all values of a config; * marks values changed by --config.KEY=VALUE."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, "config")
    add_json_argument(parser)
    parser.epilog = (
        "Override any config value with --config.KEY=VALUE, for example --config.optimizer.lr=1e-3"
    )


def run(args: argparse.Namespace) -> int:
    from vidjax.config import flatten, load

    config = load(args.config, args.overrides)
    if args.json:
        print(json.dumps(config.to_dict(), indent=1))
        return 0
    before = flatten(load(args.config))
    for key, value in flatten(config).items():
        changed = key not in before or before[key] != value
        print(
            f"{'*' if changed else ' '} {key} = {value!r}"
            + (f"  (was {before.get(key)!r})" if changed else "")
        )
    return 0
