"""The command `vidjax predict`."""

import argparse
import json
import sys
from typing import Any

from etils import epath

from vidjax.cli.common import add_checkpoint_arguments, add_json_argument, reject_overrides
from vidjax.errors import UserError

NAME = "predict"
HELP = "Classify video files."
# Suffixes of --strip, and what Pillow calls the format.
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".pdf": "PDF"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video files")
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="clips sampled from each video (default: evals.clips of the config)",
    )
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="number of classes to print (default: 5)"
    )
    add_json_argument(parser)
    parser.add_argument(
        "--strip", metavar="FILE.png", help="also save the input frames as an image, one per video"
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
    from vidjax.predict import predict_videos
    from vidjax.reports.pictures import strip

    if args.strip:
        _check_image_path(args.strip)
    checkpoint = find_checkpoint(args.checkpoint, args.which)
    failed = 0
    for i, p in enumerate(predict_videos(args.videos, checkpoint, args.clips, args.top)):
        if p.error:
            failed += 1
            print(f"vidjax: {p.error}", file=sys.stderr)
        if args.json:
            row: dict[str, Any] = {"path": p.path, "error": p.error}
            row["top"] = _named(p.top)
            row["clips"] = [
                {"start": round(a, 3), "end": round(b, 3), "name": n, "probability": round(q, 6)}
                for a, b, n, q in p.clips
            ]
            print(json.dumps(row, ensure_ascii=False))
        elif not p.error:
            print(p.path)
            for n, q in p.top:
                print(f"  {q:6.1%}  {n}")
            for start, end, n, q in p.clips:
                print(f"  {start:7.2f}–{end:.2f} s  {n} {q:.1%}")
        if args.strip and not p.error:
            path = epath.Path(args.strip)
            if len(args.videos) > 1:
                path = path.with_stem(f"{path.stem}_{i}")
            with path.open("wb") as file:
                strip(p.frames, title=p.path, probs=p.top).save(file, _PICTURES[path.suffix.lower()])
    return 2 if failed else 0


def _stream(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.predict import predict_stream

    if args.clips or args.strip:
        raise UserError("--stream does not sample clips: leave out --clips and --strip")
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
            row |= {"final": now.final, "error": now.error, "top": _named(now.top)}
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


def _named(top: list[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"name": n, "probability": round(q, 6)} for n, q in top]


def _check_image_path(path: str) -> None:
    """Raises `UserError` early if an image cannot be written to `path`."""
    if epath.Path(path).suffix.lower() not in _PICTURES:
        raise UserError(f"--strip {path}: unknown image format; use a file name such as frames.png")
    if not epath.Path(path).parent.is_dir():
        raise UserError(f"--strip {path}: the folder {epath.Path(path).parent} does not exist")
