"""The command `vidjax pick`."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from vidjax.cli.common import add_json_argument, reject_overrides

NAME = "pick"
HELP = "Rank the models for your data and compute budget, with reasons."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cue",
        choices=("appearance", "motion"),
        help="what tells the classes apart: objects and scenes, or order and direction",
    )
    parser.add_argument("--videos", type=int, metavar="N", help="number of labeled training videos")
    parser.add_argument("--gmacs", type=float, metavar="X", help="most GMACs per video (or view, or frame)")
    parser.add_argument(
        "--latency",
        type=float,
        metavar="MS",
        help="most milliseconds per video (or view, or frame) on this machine; times models at full size",
    )
    parser.add_argument(
        "--per",
        choices=("video", "view"),
        help="what the budgets are for: all views of the published protocol (default), or one view; with "
        "--streaming it is a frame",
    )
    parser.add_argument("--params", type=float, metavar="X", help="most parameters, such as 3e7")
    parser.add_argument(
        "--streaming",
        action=argparse.BooleanOptionalAction,
        help="whether to require frame-by-frame inference",
    )
    parser.add_argument(
        "--modality", choices=("rgb", "flow", "rgb+flow"), default="rgb", help="input (default: rgb)"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of models (default: 5)")
    parser.add_argument("--measure", action="store_true", help="time these models on this machine")
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    if sys.stdin and sys.stdin.isatty() and not args.json:
        _ask_missing(args)
    from vidjax.analysis.pick import Request, page, pick

    keys = ("cue", "videos", "gmacs", "latency", "params", "per", "modality", "top", "measure")
    request = Request(streaming=bool(args.streaming), **{key: getattr(args, key) for key in keys})
    result = pick(request, log=lambda line: print(line, file=sys.stderr))
    print(json.dumps(result, indent=1) if args.json else page(result))
    return 0


def _ask_missing(args: argparse.Namespace) -> None:
    """Asks for the flags that were not given; Enter leaves one out."""
    if args.cue is None:
        args.cue = _ask(
            "What tells the classes apart, appearance or motion?", _choice("appearance", "motion")
        )
    if args.videos is None:
        args.videos = _ask("How many labeled training videos are there?", _positive(int))
    if args.streaming is None:
        args.streaming = (
            _ask("Is frame-by-frame inference required, yes or no?", _choice("yes", "no")) == "yes"
        )
    if args.gmacs is None and args.latency is None:
        unit = "frame" if args.streaming else args.per or "video"
        args.gmacs = _ask(f"How many GMACs per {unit} at most?", _positive(float))


def _ask(question: str, parse: Callable[[str], Any]) -> Any:
    while True:
        print(f"{question} (Enter: skip) ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline().strip().lower()
        if not answer:
            return None
        if (value := parse(answer)) is not None:
            return value
        print(f"'{answer}' is not an answer to this question.", file=sys.stderr)


def _choice(*options: str) -> Callable[[str], str | None]:
    """Accepts an option or the beginning of one."""
    return lambda answer: next((o for o in options if o.startswith(answer)), None)


def _positive(kind: type) -> Callable[[str], Any]:
    def parse(answer: str) -> Any:
        try:
            value = kind(answer.replace(",", ""))
        except ValueError:
            return None
        return value if 0 < value < math.inf else None

    return parse
