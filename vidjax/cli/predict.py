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
        help="clips sampled from each video (default: as in the evaluation of the config)",
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="number of classes to print (default: 5)"
    )
    add_json_argument(parser)
    parser.add_argument(
        "--draw", metavar="FILE.png", help="also draw each prediction with the input frames, as an image"
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
    if args.stream:
        return _stream(args)
    if args.every or args.fps is not None:
        raise UserError("--every and --fps require --stream")
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
