"""The command `vidjax predict`."""

import argparse
import json
import sys
from typing import Any

from etils import epath

from vidjax.cli.common import add_checkpoint_arguments, add_json_argument, reject_overrides
from vidjax.errors import UserError

NAME = "predict"
HELP = "Predict video files with a checkpoint."
# Suffixes of --draw, and what Pillow calls the format.
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".pdf": "PDF"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video files")
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="clips sampled from each video (default: as in the evaluation of the config), or from each "
        "window (default: as many as cover it)",
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="number of classes to print (default: 5)"
    )
    add_json_argument(parser)
    parser.add_argument(
        "--draw", metavar="FILE.png", help="also draw each prediction with the input frames, as an image"
    )
    parser.add_argument(
        "--window",
        metavar="SECONDS",
        help="predict window after window of videos of any length, in constant memory; `clip` is the length "
        "of a clip (default with --step or --per-second)",
    )
    parser.add_argument(
        "--step",
        type=float,
        metavar="SECONDS",
        help="seconds from one window to the next (default: half a window)",
    )
    parser.add_argument(
        "--per-second",
        action="store_true",
        help="average the scores of overlapping windows for each second",
    )
    parser.add_argument(
        "--stream", action="store_true", help="predict frame by frame while decoding, in constant memory"
    )
    parser.add_argument(
        "--every",
        metavar="N",
        help="with --stream, interval between predictions in seconds, or in frames as in 30f (default: 1)",
    )
    parser.add_argument(
        "--fps", type=float, metavar="R", help="with --stream, frames per second (default: as in training)"
    )


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    if args.top < 1:
        raise UserError(f"--top must be at least 1, got {args.top}")
    if not args.stream and (args.every or args.fps is not None):
        raise UserError("--every and --fps require --stream")
    if args.stream or args.window is not None or args.step is not None or args.per_second:
        return _over_time(args)
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.predict import Predictor

    if args.draw:
        _check_image_path(args.draw)
    predictor = Predictor.load(find_checkpoint(args.checkpoint, args.which), args.clips)
    failed = 0
    for i, p in enumerate(predictor.videos(args.videos)):
        if p.error:
            failed += 1
            print(f"vidjax: {p.error}", file=sys.stderr)
        if args.json:
            row: dict[str, Any] = {"path": p.path, "error": p.error}
            row |= {} if p.error else p.content.as_json(args.top)
            print(json.dumps(row, ensure_ascii=False))
        elif not p.error:
            print(p.path, *(f"  {line}" for line in p.content.as_text(args.top)), sep="\n")
        if args.draw and not p.error:
            path = epath.Path(args.draw)
            if len(args.videos) > 1:
                path = path.with_stem(f"{path.stem}_{i}")
            with path.open("wb") as file:
                image = predictor.task.draw(p.content, p.frames, p.path)
                image.save(file, _PICTURES[path.suffix.lower()])
    return 2 if failed else 0


def _over_time(args: argparse.Namespace) -> int:
    """Prints predictions of windows, seconds, or of videos up to the current frame."""
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.predict import Predictor, StreamPrediction, per_second

    if args.draw:
        raise UserError("--draw needs one prediction per video: leave out --window, --stream and the like")
    options = _stream_options(args) if args.stream else _window_options(args)
    predictor = Predictor.load(find_checkpoint(args.checkpoint, args.which))
    found = (predictor.stream if args.stream else predictor.windows)(args.videos, **options)
    failed, path = 0, None
    for p in per_second(found) if args.per_second else found:
        if p.error:
            failed += 1
            print(f"vidjax: {p.error}", file=sys.stderr)
        if args.json:
            row: dict[str, Any] = {"path": p.path, "error": p.error}
            row |= {} if p.error else {"start": round(p.start, 3), "end": round(p.end, 3)}
            row |= {} if p.error else p.content.as_json(args.top)
            row |= {"frames": p.processed, "final": p.final} if isinstance(p, StreamPrediction) else {}
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif not p.error:
            if p.path != path:
                print(path := p.path)
            lines = p.content.as_text(args.top)
            if hasattr(p.content, "top"):
                lines = [", ".join(f"{n} {q:.1%}" for n, q in p.content.top(args.top))]
            print(f"  {p.start:8.2f}–{p.end:.2f} s  " + "\n    ".join(lines), flush=True)
    return 2 if failed else 0


def _window_options(args: argparse.Namespace) -> dict[str, Any]:
    if args.clips is not None and args.clips < 1:
        raise UserError(f"--clips must be at least 1, got {args.clips}")
    try:
        length = None if args.window in (None, "clip") else float(args.window)
    except ValueError:
        raise UserError(f"--window={args.window}: use seconds, such as 10, or clip") from None
    return {"length": length, "step": args.step, "clips": args.clips}


def _stream_options(args: argparse.Namespace) -> dict[str, Any]:
    if args.clips or args.window is not None or args.step is not None or args.per_second:
        raise UserError(
            "--stream predicts frame by frame: leave out --clips, --window, --step and --per-second"
        )
    every = args.every or "1"
    try:
        pace = {"every_frames": int(every[:-1])} if every.endswith("f") else {"every": float(every)}
    except ValueError:
        raise UserError(f"--every={every}: use seconds, such as 2.5, or frames, such as 30f") from None
    return pace | {"fps": args.fps}


def _check_image_path(path: str) -> None:
    """Raises `UserError` early if an image cannot be written to `path`."""
    if epath.Path(path).suffix.lower() not in _PICTURES:
        raise UserError(f"--draw {path}: unknown image format; use a file name such as frames.png")
    if not epath.Path(path).parent.is_dir():
        raise UserError(f"--draw {path}: the folder {epath.Path(path).parent} does not exist")
