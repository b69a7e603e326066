"""Evaluates published checkpoints on real validation sets, and compares them with their published accuracies.

    python experiments/imported/run.py --list
    python experiments/imported/run.py NAME --checkpoint FILE --data DIR [--videos N]

The list is that of `vidjax.convert.published`. See README.md beside this file.
"""

import argparse
import fnmatch
import json
import math
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax
from ml_collections import ConfigDict

import vidjax
import vidjax.convert  # registers the published checkpoints
from vidjax.cli import evaluate as eval_command
from vidjax.cli.common import parse_overrides
from vidjax.config import load, resolve
from vidjax.convert import convert_file, formats
from vidjax.convert.published import CHECKPOINTS, SSV2, Checkpoint
from vidjax.data.datasets import card, load_source
from vidjax.environment import environment
from vidjax.errors import MemoryErrors, UserError, unknown
from vidjax.tasks.results import ClassificationResult

FOLDER = pathlib.Path(__file__).parent
BATCH = 8  # videos
CONFIDENCE = 1.96  # standard errors: 95 %

# Dataset: its keys in `config.data`, and the split of published accuracies.
DATASETS = {
    "Kinetics-400": (dict(name="kinetics", options=dict(classes=400)), "val"),
    "Kinetics-600": (dict(name="kinetics", options=dict(classes=600)), "val"),
    "Kinetics-710": (dict(name="kinetics", options=dict(classes=710)), "val"),
    SSV2: (dict(name="ssv2", options={}), "val"),
    "Sports-1M": (dict(name="sports1m", options={}), "test"),
    "UCF101": (dict(name="ucf101", options={}), "test"),
}
# Shipped config of a model, by dataset or for the datasets that the model has no config of; * is what the
# pattern's * matches.
CONFIGS = {
    SSV2: {
        "mvit_v2_s_16x4": "ssv2/mvit_v2_s",
        "swin3d_b": "ssv2/swin3d_b",
        "timesformer_b_8x32": "ssv2/timesformer:variant=base",
        "timesformer_hr_16x16": "ssv2/timesformer:variant=hr",
        "timesformer_l_96x4": "ssv2/timesformer:variant=l",
        "tsm_resnet50_*f": "ssv2/tsm_resnet50_8f:frames=*",
        "videomae_b": "ssv2/videomae_b_finetune",
    },
    "Kinetics-710": {"videomae_v2_g": "kinetics710/videomae_v2_g_finetune"},
    "UCF101": {"videomae_b": "ucf101/videomae_b_finetune"},
    "": {
        "c2d_r50_8x8": "kinetics400/c2d_r50",
        "c3d": "sports1m/c3d_scratch",
        "csn_*": "kinetics400/csn:model=*",
        "i3d_inception_*": "kinetics400/i3d_inception_*",
        "i3d_nln_r50_8x8": "kinetics400/i3d_nln_r50",
        "i3d_r50_8x8": "kinetics400/i3d_r50",
        "mc3_18": "kinetics400/r2plus1d_18:model=mc3_18",
        "movinet_*": "kinetics600/movinet:model=*",
        "mvit_v1_*": "kinetics400/mvit_v1:model=mvit_v1_*",
        "mvit_v2_*": "kinetics400/mvit_v2:model=mvit_v2_*",
        "r2plus1d_18": "kinetics400/r2plus1d_18",
        "r2plus1d_34": "kinetics400/r2plus1d_34",
        "r2plus1d_r50_16x4": "kinetics400/r2plus1d_r50",
        "r3d_18": "kinetics400/r2plus1d_18:model=r3d_18",
        "s3d": "kinetics400/s3d",
        "slow_r50_8x8": "kinetics400/slow_r50",
        "slowfast_*": "kinetics400/slowfast:model=slowfast_*",
        "swin3d_*": "kinetics400/swin3d:model=swin3d_*",
        "timesformer_b_8x32": "kinetics400/timesformer:variant=base",
        "timesformer_hr_16x16": "kinetics400/timesformer:variant=hr",
        "timesformer_l_96x4": "kinetics400/timesformer:variant=l",
        "tsm_mobilenet_v2_8f": "kinetics400/tsm_resnet50_8f:dense,model=tsm_mobilenet_v2_8f",
        "tsm_resnet50_*f": "kinetics400/tsm_resnet50_8f:frames=*",
        "tsn_resnet50": "kinetics400/tsn_resnet50",
        "videomae_*": "kinetics400/videomae_*_finetune",
        "vivit_*": "kinetics400/vivit:model=vivit_*",
        "vtn_vit_b_16": "kinetics400/vtn",
        "x3d_*": "kinetics400/x3d:model=*",
    },
}


def reason(c: Checkpoint) -> str:
    """Returns why a checkpoint cannot be evaluated; "" if it can."""
    s = vidjax.spec(c.model)
    if s.task == "pretrain":
        return "pretraining, no classifier"
    if c.dataset == "ImageNet" and not c.note:
        return "weights of an image model, for backbones and inflation"
    return c.note


def tolerance(c: Checkpoint) -> float:
    """Returns the largest accepted difference on a full validation set, in points."""
    return 1.0 if c.preprocessing.unverified else 0.5


def allowed(c: Checkpoint, evaluated: int, total: int) -> float:
    """Returns the largest accepted difference in points if only some of the videos are evaluated.

    Adds to the tolerance the half width of a 95 % interval of the accuracy on `evaluated` of `total` videos
    drawn without replacement, the normal approximation of the hypergeometric distribution.
    """
    if evaluated >= total:
        return tolerance(c)
    p = c.top1 / 100
    variance = p * (1 - p) / evaluated * (total - evaluated) / (total - 1)
    return tolerance(c) + CONFIDENCE * 100 * math.sqrt(variance)


def config_name(c: Checkpoint) -> str:
    """Returns the shipped config of a checkpoint's model, with its argument."""
    for configs in (CONFIGS.get(c.dataset, {}), CONFIGS[""]):
        for pattern, name in configs.items():
            if fnmatch.fnmatch(c.model, pattern):
                return name.replace("*", c.model[len(pattern.partition("*")[0]) :].removesuffix("f"))
    raise KeyError(f"no shipped config of {c.model}")


def evaluation_config(
    c: Checkpoint,
    data: str | pathlib.Path,
    videos: int | None = None,
    overrides: Sequence[str] = (),
    tiny: bool = False,
) -> ConfigDict:
    """Returns the shipped config of a checkpoint's model under the protocol of its published accuracy.

    Args:
      c: the checkpoint.
      data: folder of the dataset.
      videos: evaluates so many videos; None evaluates all.
      overrides: config values to set, such as "evals.val.batch=4".
      tiny: whether to use the tiny preset.
    """
    shipped = load(config_name(c)).to_dict()
    sections = c.preprocessing.sections(vidjax.spec(c.model), tiny)
    dataset, split = DATASETS[c.dataset]
    split = c.split or split
    known = shipped["data"]["options"] if shipped["data"]["name"] == dataset["name"] else {}
    devices = jax.device_count()
    config = {
        "epochs": 1.0,
        "batch": devices * max(1, BATCH // devices),
        "task": {"name": shipped["task"]["name"]},
        "model": sections["model"],
        "data": {
            **shipped["data"],
            **sections["data"],
            "name": dataset["name"],
            "options": {**known, **dataset["options"], "path": str(data)},
            "train_split": split,  # the training videos are not needed
            "eval_split": split,
        },
        "evals": {"val": {**sections["evals"]["val"], "videos": videos}},
    }
    return resolve(config, overrides)


def run(
    c: Checkpoint,
    file: str | pathlib.Path,
    data: str | pathlib.Path,
    videos: int | None = None,
    overrides: Sequence[str] = (),
    tiny: bool = False,
) -> dict[str, Any]:
    """Converts and evaluates a checkpoint, and compares the result with the published accuracy.

    Raises:
      UserError: the checkpoint cannot be evaluated, or the file or the data are not what they should be.
    """
    if why := reason(c):
        raise UserError(f"{c.name} cannot be evaluated: {why}")
    if not pathlib.Path(file).exists() and not pathlib.Path(f"{file}.index").exists():
        raise UserError(f"no checkpoint at {file}: download {c.file} from {c.url}")
    found = formats.sha256(file)
    if not found.startswith(c.sha256):
        raise UserError(
            f"{file} is not {c.file}: its SHA-256 starts with {found[: len(c.sha256)]}, not {c.sha256}; "
            "download it again"
        )
    config = evaluation_config(c, data, videos, overrides, tiny)
    split = config.data.eval_split
    source = load_source(config.data.name, split, **config.data.options)
    about, missing = card(config.data.name), len(getattr(source, "problems", ()))
    total = len(source) + missing
    if about and about.classes == len(source.class_names):
        total = max(total, about.splits.get(split) or 0)
    with tempfile.TemporaryDirectory() as folder:
        converted = pathlib.Path(folder) / "checkpoint"
        convert_file(
            file,
            c.model,
            converted,
            c.origin,
            class_names=source.class_names,
            tiny=tiny,
            options=c.preprocessing.options,
            config=config.to_dict(),
        )
        out = pathlib.Path(folder) / "eval"
        args = dict(checkpoint=str(converted), which="last", out=str(out), overrides=[], distributed=False)
        args |= dict.fromkeys(("coordinator", "processes", "process"))
        eval_command.run(argparse.Namespace(**args))
        result = ClassificationResult.load(out / "result.npz")
    measured = {k: round(100 * result.metrics[f"video_{k}"], 3) for k in ("top1", "top5")}
    record = {
        "name": c.name,
        "label": "imported",
        "file": {"name": pathlib.Path(file).name, "sha256": found, "url": c.url, "licence": c.licence},
        "dataset": c.dataset,
        "split": split,
        "videos": {"evaluated": len(result.ids), "of": total, "fingerprint": source.fingerprint},
        "views": f"{config.evals.val.clips}x{config.evals.val.crops}",
        "config": config_name(c),
        "overrides": list(overrides),
        "published": {"top1": c.top1, "top5": c.top5, "source": c.source},
        "measured": measured,
        "difference": None,
        "allowed": None,
        "within": None,
        "environment": environment(),
    }
    if c.top1 is not None:
        difference, limit = measured["top1"] - c.top1, allowed(c, len(result.ids), total)
        record |= dict(
            difference=round(difference, 3), allowed=round(limit, 3), within=abs(difference) <= limit
        )
    return record


def verdict(record: Mapping[str, Any]) -> str:
    """Returns the comparison of a record as a sentence."""
    seen = record["videos"]
    text = f"{record['name']}: top-1 {record['measured']['top1']:.2f} on {seen['evaluated']:,} videos"
    if seen["evaluated"] < seen["of"]:
        text += f" ({seen['of'] - seen['evaluated']:,} of {seen['of']:,} are missing or left out)"
    if record["within"] is None:
        return f"{text}; no accuracy is published"
    side = "within" if record["within"] else "OUTSIDE"
    return f"{text}; published {record['published']['top1']}, {side} ±{record['allowed']:.2f} points"


def results() -> dict[str, dict[str, Any]]:
    """Returns the stored records by name."""
    records = (json.loads(p.read_text()) for p in sorted((FOLDER / "results").glob("*.json")))
    return {r["name"]: r for r in records}


def tables() -> str:
    """Returns Markdown tables of the checkpoints that can be evaluated, and of the others."""
    done = results()
    able, others = [], []
    for c in sorted(CHECKPOINTS.values(), key=lambda c: c.name):
        top1, top5 = ("–" if x is None else f"{x:g}" for x in (c.top1, c.top5))
        cells = [f"`{c.name}`", c.dataset, f"[{c.file}]({c.url})", c.sha256 or "–", c.licence]
        if why := reason(c):
            others.append([*cells, why])
            continue
        if c.split:
            cells[1] += f" {c.split}"
        accuracy = [c.views(vidjax.spec(c.model)), f"{top1} / {top5}", c.source or "–"]
        limit = "–" if c.top1 is None else f"±{tolerance(c)}"
        measured = f"{done[c.name]['measured']['top1']:.2f}" if c.name in done else "not run"
        able.append([*cells[:2], *accuracy, limit, measured, *cells[2:]])
    about = ("name", "dataset", "file", "SHA-256", "license")
    head = (*about[:2], "views", "published top-1 / top-5", "source", "tolerance", "measured", *about[2:])
    were_run = f"**Run: {len(done) or 'none'} of the {len(able)} checkpoints that can be evaluated.**"
    rest = f"{len(others)} others can be converted, but not evaluated:"
    return "\n\n".join((were_run, _table(head, able), rest, _table((*about, "why"), others)))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def update_readme() -> None:
    """Writes the tables between the marks of README.md."""
    path = FOLDER / "README.md"
    before, rest = path.read_text().split("<!-- results -->")
    after = rest.split("<!-- end of results -->")[1]
    path.write_text(f"{before}<!-- results -->\n{tables()}\n<!-- end of results -->{after}")


def describe(c: Checkpoint) -> str:
    """Returns where the file of a checkpoint is, and the command that evaluates it."""
    lines = [f"{c.name}: {c.url}, saved as {c.file}; {c.licence}"]
    lines.append(reason(c) or f"python experiments/imported/run.py {c.name} --checkpoint {c.file} --data DIR")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Evaluate published checkpoints under their protocols.",
        epilog="Override any config value with --config.KEY=VALUE, such as --config.evals.val.batch=4.",
    )
    parser.add_argument("name", nargs="?", help="a checkpoint; alone, prints where its file is")
    parser.add_argument("--list", action="store_true", help="print the table of all checkpoints")
    parser.add_argument("--readme", action="store_true", help="write the table to README.md")
    parser.add_argument("--checkpoint", metavar="FILE", help="the downloaded file")
    parser.add_argument("--data", metavar="DIR", help="folder of the dataset, see docs/datasets.md")
    parser.add_argument("--videos", type=int, metavar="N", help="evaluate so many videos only")
    args, rest = parser.parse_known_args(argv)
    try:
        if args.list:
            print(tables())
            return 0
        if args.readme:
            update_readme()
            return 0
        if args.name not in CHECKPOINTS:
            if args.name is None:
                raise UserError("name a checkpoint, see --list")
            raise unknown("checkpoint", args.name, CHECKPOINTS)
        c = CHECKPOINTS[args.name]
        if not args.checkpoint:
            print(describe(c))
            return 0
        if not args.data:
            raise UserError("set --data to the folder of the dataset")
        with MemoryErrors("lower evals.val.batch"):
            record = run(c, args.checkpoint, args.data, args.videos, parse_overrides(rest))
    except UserError as e:
        print(f"run.py: {e}", file=sys.stderr)
        return 2
    path = FOLDER / "results" / f"{c.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    update_readme()
    print(f"{verdict(record)}\nwritten: {path}")
    return 1 if record["within"] is False else 0


if __name__ == "__main__":
    sys.exit(main())
