"""The command `vidjax fuse`."""

import argparse

from etils import epath

from vidjax.cli.common import reject_overrides, results_folder
from vidjax.errors import UserError

NAME = "fuse"
HELP = "Combine the predictions of several models (late fusion)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="result.npz files of the same videos, or folders that contain one",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the combined results")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="weight of each RESULT in the average (default: equal)",
    )
    parser.add_argument(
        "--svm",
        nargs="+",
        metavar="RESULT",
        help="combine with a linear SVM instead of an average, fitted to these results of the same models "
        "on the training videos",
    )
    parser.add_argument(
        "--c", type=float, default=1.0, help="regularization parameter C of the SVM (default: 1)"
    )
    parser.epilog = "Results on the training videos: vidjax eval --config.data.eval_split=train --out DIR"


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    from vidjax.tasks.fusion import average, svm
    from vidjax.tasks.results import ClassificationResult

    if args.svm and args.weights:
        raise UserError("--weights applies to the average only: leave it out with --svm")

    def read(paths: list[str]) -> list[ClassificationResult]:
        found = (epath.Path(p) for p in paths)
        return [ClassificationResult.load(f / "result.npz" if f.is_dir() else f) for f in found]

    results = read(args.results)
    fused = svm(read(args.svm), results, args.c) if args.svm else average(results, args.weights)
    out = results_folder(args.out)
    fused.save(out / "result.npz")
    fused.write_predictions(out / "predictions.jsonl")
    for path, result in zip((*args.results, "fused"), (*results, fused), strict=True):
        print(f"{result.metrics['video_top1']:.4f}  video top-1 of {path}")
    print(f"predictions: {out / 'predictions.jsonl'}")
    return 0
