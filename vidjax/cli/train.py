"""The command `vidjax train`."""

import argparse

from etils import epath

from vidjax.cli.common import add_cluster_arguments, add_config_argument, is_lead, join_hosts, print_metrics

NAME = "train"
HELP = "Train a model, or resume a stopped run from its latest checkpoint."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, "--config", required=True)
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder for checkpoints, metrics and the report"
    )
    parser.add_argument(
        "--profile",
        metavar="FIRST:LAST",
        help="trace these steps to DIR/profile, for xprof",
    )
    add_cluster_arguments(parser)
    parser.epilog = (
        "Override any config value with --config.KEY=VALUE, for example --config.optimizer.lr=1e-3"
    )


def run(args: argparse.Namespace) -> int:
    from vidjax.config import load
    from vidjax.train.loop import train
    from vidjax.train.telemetry import parse_steps

    profile = parse_steps(args.profile)
    config = load(args.config, args.overrides)
    join_hosts(args, config.parallel.host_timeout)
    results = train(config, args.workdir, profile)
    if results is not None and is_lead():
        for name, result in results.items():
            if result.metrics:
                print(f"{name}:")
                print_metrics(result.metrics)
        report = epath.Path(args.workdir) / "report.html"
        if config.report and report.exists():
            print(f"report: {report}")
    return 0
