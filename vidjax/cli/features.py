"""The command `vidjax features`."""

import argparse
import sys

from vidjax.cli.common import (
    HOST_TIMEOUT,
    add_checkpoint_arguments,
    add_cluster_arguments,
    is_lead,
    join_hosts,
)

NAME = "features"
HELP = "Extract features from a layer and write them to a file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video files, or dataset:SPLIT for a split of the dataset that the checkpoint was trained on",
    )
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--layer", default="pre_logits", metavar="NAME", help="endpoint of the model (default: pre_logits)"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="output file, .npz or .array_record")
    parser.add_argument(
        "--frames", action="store_true", help="write one row per frame instead of one per window"
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="overlap of consecutive windows, from 0 to below 1 (default: 0)",
    )
    parser.add_argument(
        "--dense", action="store_true", help="write the feature maps instead of their average"
    )
    add_cluster_arguments(parser)
    parser.epilog = "Override any config value with --config.KEY=VALUE, for example --config.data.frames=32"


def run(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.features import cache_features

    join_hosts(args, HOST_TIMEOUT)
    done = cache_features(
        args.videos,
        find_checkpoint(args.checkpoint, args.which),
        args.layer,
        args.out,
        dense=args.dense,
        frames=args.frames,
        overlap=args.overlap,
        overrides=args.overrides,
    )
    if not is_lead():
        return 0
    for _, error in done.bad:
        print(f"vidjax: {error}", file=sys.stderr)
    shape = "x".join(map(str, done.meta["shape"]))
    print(f"{args.out}: {done.videos} videos, {done.rows} rows of {shape}")
    print(f"{done.meta['model']} {done.meta['layer']}, weights {done.meta['weights']}")
    return 2 if done.bad else 0
