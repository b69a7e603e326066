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
    windows = args.window is not None or args.step is not None or args.per_second
    if args.stream and windows:
        raise UserError("--stream predicts frame by frame: leave out --window, --step and --per-second")
    if args.stream:
        return _stream(args)
    if args.every or args.fps is not None:
        raise UserError("--every and --fps require --stream")
    if windows:
        return _windows(args)
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


def _windows(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.predict import Predictor, per_second
    from vidjax.tasks.classification import best, named

    if args.draw:
        raise UserError("--draw needs one prediction per video: leave out --window, --step and --per-second")
    if args.clips is not None and args.clips < 1:
        raise UserError(f"--clips must be at least 1, got {args.clips}")
    try:
        length = None if args.window in (None, "clip") else float(args.window)
    except ValueError:
        raise UserError(f"--window={args.window}: use seconds, such as 10, or clip") from None
    predictor = Predictor.load(find_checkpoint(args.checkpoint, args.which))
    found = predictor.windows(args.videos, length, args.step, args.clips)
    names = predictor.task.class_names
    failed, path = 0, None
    for p, scores in per_second(found) if args.per_second else ((p, None) for p in found):
        if p.error:
            failed += 1
            print(f"vidjax: {p.error}", file=sys.stderr)
        top = None if p.error or scores is None else best(scores, names, args.top)
        if args.json:
            row: dict[str, Any] = {"path": p.path, "error": p.error}
            if not p.error:
                row |= {"start": round(p.start, 3), "end": round(p.end, 3)}
                row |= p.content.as_json(args.top) if top is None else {"top": named(top)}
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif not p.error:
            if p.path != path:
                print(path := p.path)
            span = f"  {p.start:8.2f}–{p.end:.2f} s"
            top = p.content.top(args.top) if top is None and hasattr(p.content, "top") else top
            if top is None:
                print(span, *(f"    {line}" for line in p.content.as_text(args.top)), sep="\n", flush=True)
            else:
                print(f"{span}  " + ", ".join(f"{n} {q:.1%}" for n, q in top), flush=True)
    return 2 if failed else 0


def _stream(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.predict import predict_stream
    from vidjax.tasks.classification import named

    if args.clips or args.draw:
        raise UserError("--stream does not sample clips: leave out --clips and --draw")
    every = args.every or "1"
    try:
        pace = {"every_frames": int(every[:-1])} if every.endswith("f") else {"every": float(every)}
    except ValueError:
        raise UserError(f"--every={every}: use seconds, such as 2.5, or frames, such as 30f") from None
    checkpoint = find_checkpoint(args.checkpoint, args.which)
    failed, path = 0, None
    for now in predict_stream(args.videos, checkpoint, **pace, fps=args.fps, top=args.top):
        if now.error:
            failed += 1
            print(f"vidjax: {now.error}", file=sys.stderr)
        if args.json:
            row = {"path": now.path, "seconds": round(now.seconds, 3), "frames": now.frames}
            row |= {"final": now.final, "error": now.error, "top": named(now.top)}
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif not now.error:
            if now.path != path:
                print(path := now.path)
            if now.final:
                print(f"  {now.frames} frames, {now.seconds:.2f} s")
                for n, q in now.top:
                    print(f"  {q:6.1%}  {n}")
            else:
                print(f"  {now.seconds:8.2f} s  {now.top[0][0]} {now.top[0][1]:.1%}", flush=True)
    return 2 if failed else 0


def _check_image_path(path: str) -> None:
    """Raises `UserError` early if an image cannot be written to `path`."""
    if epath.Path(path).suffix.lower() not in _PICTURES:
        raise UserError(f"--draw {path}: unknown image format; use a file name such as frames.png")
    if not epath.Path(path).parent.is_dir():
        raise UserError(f"--draw {path}: the folder {epath.Path(path).parent} does not exist")
