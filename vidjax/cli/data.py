"""The command `vidjax data`."""

import argparse
import ast
import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from vidjax.cli.common import add_config_argument, add_json_argument, reject_overrides, results_folder
from vidjax.errors import UserError, unknown

NAME = "data"
HELP = "Prepare, check and show datasets, and measure how fast they are loaded."

_PROBLEMS = 20  # printed of each kind; --json prints all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, run: Callable, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(action=run)
        return sub

    add_json_argument(action("list", _list, "List the datasets."))

    prepare = action("prepare", _prepare, "Re-encode a dataset into shards that are fast to read.")
    _add_dataset_arguments(prepare)
    prepare.add_argument("--out", required=True, metavar="DIR", help="output folder, local, gs:// or s3://")
    storage = ("video", "jpeg", "features")
    text = "H.264 videos (default), or a JPEG image for each frame; for features see `vidjax features`"
    prepare.add_argument("--storage", choices=storage, default="video", help=text)
    for name, default, text in (
        ("--short-side", 320, "pixels that the short side is reduced to; 0 keeps the size"),
        ("--gop", 8, "frames from one keyframe to the next"),
        ("--crf", 23, "constant rate factor of H.264; lower is better and larger"),
    ):
        prepare.add_argument(
            name, type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    prepare.add_argument("--audio", action="store_true", help="keep the sound, as AAC with one channel")
    prepare.add_argument(
        "--bad-limit",
        type=float,
        default=0.05,
        metavar="FRACTION",
        help="fraction of records that may be unreadable (default: 0.05)",
    )
    _add_workers_argument(prepare)
    prepare.add_argument("--runner", metavar="RUNNER", help="Apache Beam runner, such as DataflowRunner")
    prepare.add_argument(
        "--beam",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of Apache Beam, such as project=my-project region=us-central1",
    )

    check = action("check", _check, "Check annotations against files; exit code 1 if there are problems.")
    _add_dataset_arguments(check)
    _add_workers_argument(check)
    text = "frames that each record needs (default: 2)"
    check.add_argument("--frames", type=int, default=2, metavar="N", help=text)
    add_json_argument(check)

    stats = action("stats", _stats, "Print and plot durations, frame rates, sizes and the class balance.")
    _add_dataset_arguments(stats)
    _add_workers_argument(stats)
    stats.add_argument("--out", metavar="DIR", help="folder for stats.json and stats.png")
    add_json_argument(stats)

    show = action("show", _show, "Draw frames of a few clips per class, as PNG and HTML.")
    _add_dataset_arguments(show)
    show.add_argument("--out", required=True, metavar="DIR", help="folder for SPLIT.png and SPLIT.html")
    for name, default, text in (
        ("--clips", 2, "clips per class"),
        ("--classes", 20, "classes, evenly chosen"),
        ("--frames", 6, "frames per clip"),
    ):
        text += f" (default: {default})"
        show.add_argument(name, type=int, default=default, metavar="N", help=text)

    bench = action("bench", _bench, "Measure how fast the training clips of a config are loaded.")
    add_config_argument(bench, "config")
    text = "seconds to measure (default: 20)"
    bench.add_argument("--seconds", type=float, default=20.0, metavar="S", help=text)
    add_json_argument(bench)


def _add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="dataset, see `vidjax data list`")
    parser.add_argument("--source", metavar="DIR", help="folder of the dataset, local, gs:// or s3://")
    parser.add_argument(
        "--split", nargs="+", metavar="SPLIT", help="splits (default: all that the folder has)"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the dataset, as in data.options; repeat it for several",
    )
    parser.add_argument("--target", metavar="TYPE", help="type of the targets, such as SegmentsTarget")


def _add_workers_argument(parser: argparse.ArgumentParser) -> None:
    text = "worker processes (default: one per CPU core)"
    parser.add_argument("--workers", type=int, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    if args.action is not _bench:
        reject_overrides(args)
    for name in ("short_side", "workers", "gop", "crf", "frames", "clips", "classes", "bad_limit"):
        least = 0 if name in ("short_side", "workers", "crf", "bad_limit") else 1
        value = getattr(args, name, None)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
    return args.action(args)


def _list(args: argparse.Namespace) -> int:
    from vidjax.data.datasets import card, dataset_names, summary

    rows = []
    for name in dataset_names():
        about = card(name)
        row = {"name": name, "title": about.title if about else summary(name)}
        row["targets"] = [kind.__name__ for kind in about.targets] if about else []
        rows.append(row | {"splits": list(about.splits) if about else []})
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        targets = f" ({', '.join(row['targets'])})" if row["targets"] else ""
        print(f"{row['name']:{width}}  {row['title']}{targets}")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    if args.storage == "features":
        raise UserError(
            "features are extracted from a checkpoint, not from a dataset alone: run `vidjax features "
            "dataset:SPLIT --checkpoint DIR --out FILE.array_record` with --config.data.options.path set to "
            "the dataset or a prepared folder"
        )
    if args.beam and not args.runner:
        raise UserError("--beam is for --runner: add it, such as --runner DirectRunner")
    if args.runner and args.workers is not None:
        raise UserError("--workers is for this machine, and --runner for a cluster: remove one of them")
    from vidjax.data.prepare import write
    from vidjax.data.prepare.encode import Settings

    if args.runner:
        runner = write.beam(args.runner, [f"--{option}" for option in args.beam])
    else:
        runner = write.local(_workers(args))
    sources, options = _open(args)
    if any(hasattr(source, "origin") for source in sources.values()):
        raise UserError("cached features need no preparation: use their file as it is")
    settings = Settings(args.storage, args.short_side, args.gop, args.crf, args.audio)
    dataset = write.Dataset(args.name, options, settings)
    for split, source in sources.items():
        with _progress(f"{split}:") as progress:
            done = write.prepare_split(args.out, dataset, split, source, runner, args.bad_limit, progress)
        bad = f", {done.bad} unreadable (see bad_videos.jsonl)" if done.bad else ""
        print(
            f"{split}: {done.records:,} records, {done.videos:,} videos, {done.bytes / 1e9:.3g} GB{bad}, "
            f"fingerprint {done.fingerprint}"
        )
    print(f"train on it with --config.data.name={args.name} --config.data.options.path={args.out}")
    return 0


def _check(args: argparse.Namespace) -> int:
    checked = _checked(args, args.frames)
    bad = any(problem.kind != "copy" for split in checked.values() for problem in split.problems)
    if args.json:
        splits = {
            name: {
                "records": split.records,
                "videos": len(split.facts),
                "fingerprint": split.fingerprint,
                "classes": split.classes,
                "problems": [dataclasses.asdict(problem) for problem in split.problems],
            }
            for name, split in checked.items()
        }
        print(json.dumps({"dataset": args.name, "ok": not bad, "splits": splits}, indent=1))
        return int(bad)
    for name, split in checked.items():
        counts = [*split.classes.values()]
        each = f", {len(counts)} classes of {min(counts):,} to {max(counts):,} records" if counts else ""
        print(f"{name}: {split.records:,} records, {len(split.facts):,} readable videos{each}")
        print(f"  fingerprint {split.fingerprint}")
        kinds: dict[str, list] = {}
        for problem in split.problems:
            kinds.setdefault(problem.kind, []).append(problem)
        for kind, problems in kinds.items():
            print(f"  {kind}: {len(problems):,}")
            for problem in problems[:_PROBLEMS]:
                print(f"    {problem.id}: {problem.text}" if problem.id else f"    {problem.text}")
            if len(problems) > _PROBLEMS:
                print(f"    … and {len(problems) - _PROBLEMS:,} more; --json prints all")
    print("problems found" if bad else "no problems found")
    return int(bad)


def _stats(args: argparse.Namespace) -> int:
    from vidjax.data.prepare import check

    checked = _checked(args, 1)
    rows = {name: check.numbers(split) for name, split in checked.items()}
    if args.out:
        from vidjax import files
        from vidjax.reports.dataset import plot

        out = results_folder(args.out)
        files.write(out / "stats.json", json.dumps(rows, indent=1) + "\n")
        file = io.BytesIO()
        plot(checked).savefig(file, dpi=120)
        files.write(out / "stats.png", file.getvalue())
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for name, row in rows.items():
        size = f"{row['hours']:.3g} hours, {row['gigabytes']:.3g} GB"
        print(f"{name}: {row['records']:,} records, {row['videos']:,} videos, {size}")
        if row["unreadable"]:
            print(f"  unreadable   {row['unreadable']:,} videos: see `vidjax data check`")
        for key in ("seconds", "frames", "fps", "short_side", "per_class"):
            if spread := row[key]:
                values = "  ".join(f"{k} {spread[k]:.4g}" for k in ("min", "median", "mean", "max"))
                print(f"  {key:12} {values}")
        sizes = ", ".join(f"{size} ({count:,})" for size, count in [*row["sizes"].items()][:5])
        print(f"  {'sizes':12} {sizes}\n  {'with_audio':12} {row['with_audio']:,}")
    if args.out:
        print(f"wrote {out}/stats.json and {out}/stats.png")
    return 0


def _show(args: argparse.Namespace) -> int:
    from vidjax import files
    from vidjax.reports.dataset import contact_page, contact_sheet, examples

    sources, _ = _open(args)
    out = results_folder(args.out)
    for split, source in sources.items():
        found, bad = examples(source, args.classes, args.clips, args.frames)
        for error in bad:
            print(f"{split}: {error}")
        if not found:
            raise UserError(f"no clip of split '{split}' can be read: run `vidjax data check {args.name}`")
        file = io.BytesIO()
        contact_sheet(found).save(file, "PNG")
        files.write(out / f"{split}.png", file.getvalue())
        files.write(out / f"{split}.html", contact_page(f"{args.name}, {split}", found))
        print(f"{split}: {len(found)} clips, {out}/{split}.png and {out}/{split}.html")
    return 0


def _checked(args: argparse.Namespace, least: int) -> dict[str, Any]:
    from vidjax.data.prepare import check

    sources, _ = _open(args, all_records=True)
    with _progress("checking") as progress:
        return check.check(sources, _workers(args), least, progress)


def _open(args: argparse.Namespace, all_records: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Opens the splits. Returns them, and the options of the dataset.

    With `all_records`, no number of unusable annotations is an error.
    """
    from vidjax.data.datasets import option_names
    from vidjax.data.prepare.check import open_splits
    from vidjax.data.targets import TARGETS

    options = {}
    for text in args.option:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--option is KEY=VALUE, not '{text}'")
        options[key] = _value(value)
    known = option_names(args.name)
    if args.source is not None:
        options["path"] = args.source
    elif known.get("path"):
        raise UserError(f"dataset {args.name} needs --source DIR")
    if args.target is not None and args.target not in TARGETS:
        raise unknown("type of targets", args.target, TARGETS)
    given = dict(options)
    if all_records and "bad_limit" in known:
        options.setdefault("bad_limit", 1.0)
    target = TARGETS[args.target] if args.target else None
    sources, skipped = open_splits(args.name, args.split, options, target)
    if not getattr(args, "json", False):
        for text in skipped:
            print(f"skipped {text}")
    return sources, given


def _value(text: str) -> Any:
    """Returns the value of an option, which is text unless it is a Python literal."""
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return text


def _workers(args: argparse.Namespace) -> int:
    return len(os.sched_getaffinity(0)) if args.workers is None else args.workers


@contextlib.contextmanager
def _progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("videos")
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bench(args: argparse.Namespace) -> int:
    if not 0 < args.seconds <= 3600:
        raise UserError(f"--seconds must be from 0 to 3600, not {args.seconds:g}")
    from vidjax import config as configs
    from vidjax.data.bench import bench, page
    from vidjax.data.datasets import load_source
    from vidjax.tasks import task_class
    from vidjax.train.experiment import create_parts

    config = configs.load(args.config, args.overrides)
    data = config.data
    source = load_source(data.name, data.train_split, task_class(config.task.name).target, **data.options)
    _, task = create_parts(config, source.class_names)
    result = bench(source, data, config.batch, config.seed, args.seconds, **task.reading)
    if args.json:
        print(json.dumps(dataclasses.asdict(result), indent=1))
        return 0
    from rich.console import Console

    Console(soft_wrap=True, highlight=False).print(page(result))
    return 0
