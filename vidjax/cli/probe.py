"""The command `vidjax probe`."""

import argparse

from vidjax.cli.common import print_metrics

NAME = "probe"
HELP = "Evaluate cached features with a linear, attentive or kNN probe."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "features",
        metavar="FILE",
        help="output of `vidjax features`, with {split} in place of train and test: feats_{split}.npz",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder for the probe and its results"
    )
    parser.add_argument("--kind", default="linear", help="knn, linear (default), linear_bn or attentive")
    parser.add_argument("--k", type=int, default=20, help="number of neighbors for --kind knn (default: 20)")
    parser.epilog = (
        "Override any config value with --config.KEY=VALUE, for example --config.data.eval_split=val "
        "--config.optimizer.lr=1e-3"
    )


def run(args: argparse.Namespace) -> int:
    from vidjax.probe import probe

    result = probe(args.features, args.workdir, args.kind, args.k, args.overrides)
    if result is not None:
        print_metrics(result.metrics)
    return 0
