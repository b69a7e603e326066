"""The command `vidjax audit`."""

import argparse
import dataclasses
import io
import json
from typing import Any

from vidjax.cli.common import add_config_argument, add_json_argument
from vidjax.errors import UserError

NAME = "audit"
HELP = "Read a few clips of a config, and report faults of the sampling; exit code 1 if there are errors."
_CLIPS = 3  # clips per finding that are printed; --json prints more
_CLIPS_JSON, _CLIPS_DRAWN = 32, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, "config")
    text = "videos to read of each split (default: 32)"
    parser.add_argument("--videos", type=int, default=32, metavar="N", help=text)
    text = "seed of the choice of videos and of the augmentation (default: 0)"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=text)
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there are warnings as well")
    text = "draw the clips that show the faults, as a .png or .html file"
    parser.add_argument("--draw", metavar="FILE", help=text)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    for name, least in (("videos", 1), ("seed", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(args, name)}")
    if args.draw and not args.draw.endswith((".png", ".html")):
        raise UserError(f"--draw must end in .png or .html, not '{args.draw}'")
    from vidjax import config as configs
    from vidjax.data.audit import SEVERITIES, Part, audit
    from vidjax.data.datasets import load_source
    from vidjax.evaluation import create_evals
    from vidjax.evaluation.metrics import MetricsEval
    from vidjax.tasks import task_class
    from vidjax.train.experiment import check_sources, create_parts, load_sources

    config = configs.load(args.config, args.overrides)
    data, target = config.data, task_class(config.task.name).target
    train, test = load_sources(config)
    _, task = create_parts(config, train.class_names)
    sources = {data.eval_split: test}
    parts: dict[tuple, Part] = {}
    for name, each in create_evals(config.evals).items():
        split = each.split or data.eval_split
        if split not in sources:
            sources[split] = load_source(data.name, split, target, **data.options)
            check_sources(config, train, sources[split], split)
        part = Part(name, sources[split], data)
        if isinstance(each, MetricsEval):
            part = Part(name, sources[split], each.data(config), each.clips, each.crops, each.cover)
        how = split, part.cfg.to_json(), part.clips, part.crops, part.cover
        parts.setdefault(how, part)  # evaluations that read the same views are audited once
    result = audit(
        Part("train", train, data),
        [*parts.values()],
        task.reading["streams"],
        args.videos,
        args.seed,
        labeled=target is not None,
        normalize=task.inputs,
    )
    counts = {severity: result.count(severity) for severity in SEVERITIES}
    if args.draw and result.findings:
        _draw(args.draw, args.config, result.findings)
    if args.json:
        findings = [_row(finding) for finding in result.findings]
        print(
            json.dumps(
                {"config": args.config, "parts": result.parts, **counts, "findings": findings}, indent=1
            )
        )
    else:
        _print(result)
        print(", ".join(f"{n} {severity}{'s' * (n != 1)}" for severity, n in counts.items()))
    return int(counts["error"] > 0 or (args.strict and counts["warning"] > 0))


def _print(result: Any) -> None:
    for line in result.parts:
        print(line)
    print()
    for finding in result.findings:
        print(f"{finding.severity} [{finding.check}] {finding.part}: {finding.message}")
        print(f"  change: {finding.change}")
        for shown in finding.clips[:_CLIPS]:
            print(f"  {_text(shown)}")
        if len(finding.clips) > _CLIPS:
            print(f"  … and {len(finding.clips) - _CLIPS:,} more")
        print()


def _text(shown: Any) -> str:
    parts = [f"{shown.id} {shown.view}".strip()]
    if shown.frames:
        frames = [*map(str, shown.frames)]
        parts.append("frames " + " ".join(frames if len(frames) <= 10 else [*frames[:5], "…", *frames[-4:]]))
    if shown.times:
        parts[-1] += f" ({min(shown.times):.2f}-{max(shown.times):.2f} s)"
    return ": ".join([*parts[:1], ", ".join(filter(None, [*parts[1:], shown.text]))])


def _row(finding: Any) -> dict[str, Any]:
    fields = ("id", "view", "frames", "times", "text")
    row = {f.name: getattr(finding, f.name) for f in dataclasses.fields(finding) if f.name != "clips"}
    row["clips"] = [{k: getattr(shown, k) for k in fields} for shown in finding.clips[:_CLIPS_JSON]]
    return row | {"clips_total": len(finding.clips)}


def _draw(file: str, config: str, findings: Any) -> None:
    """Draws the clips of each finding, a row each."""
    from etils import epath

    from vidjax import files
    from vidjax.reports.dataset import Example, contact_page, contact_sheet

    examples = []
    for finding in findings:
        for shown in finding.clips[:_CLIPS_DRAWN]:
            clip = shown.clip
            if clip is None or clip.thumbs is None:
                continue
            images = clip.thumbs
            if images.shape[-1] == 2:
                from vidjax.flow import picture

                images = picture(images)
            if images.shape[-1] == 1:
                images = images.repeat(3, -1)
            title = f"{finding.severity}: {finding.part}: {finding.message}"
            name = f"{shown.id} {shown.view}, {shown.text}".strip(", ")
            none = [""] * len(images)
            examples.append(
                Example(title, name, images, clip.thumb_times, none, (), float(clip.times.max()) or 1.0)
            )
    if not examples:
        return
    path = epath.Path(file)
    if file.endswith(".html"):
        files.write(path, contact_page(f"Audit of {config}", examples))
        return
    data = io.BytesIO()
    contact_sheet(examples).save(data, "PNG")
    files.write(path, data.getvalue())
