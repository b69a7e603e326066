"""The command `vidjax eval`."""

import argparse
import json
from typing import Any

from etils import epath

from vidjax import files
from vidjax.cli.common import (
    HOST_TIMEOUT,
    add_checkpoint_arguments,
    add_cluster_arguments,
    is_lead,
    join_hosts,
    print_metrics,
    results_folder,
)
from vidjax.errors import UserError

NAME = "eval"
HELP = "Run the evaluations of a checkpoint's config."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the results (default: eval/ in the checkpoint DIR)"
    )
    add_cluster_arguments(parser)
    parser.epilog = (
        "Override any config value with --config.KEY=VALUE, for example 10 clips and 3 crops per video: "
        "--config.evals.val.clips=10 --config.evals.val.crops=3"
    )


def run(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import check_meta, choice_text, find_checkpoint, load_variables, merge_variables
    from vidjax.config import restore
    from vidjax.data.datasets.features import check_origin
    from vidjax.train.experiment import build
    from vidjax.train.loop import check_task, eval_folder

    join_hosts(args, HOST_TIMEOUT)
    checkpoint = find_checkpoint(args.checkpoint, args.which)
    variables, meta = load_variables(checkpoint)
    check_meta(meta, checkpoint, "config", "class_names")
    config = restore(meta["config"], args.overrides)
    check_task(meta, config, checkpoint)
    exp = build(config)
    if exp.task.target is not None and exp.eval_source.class_names != tuple(meta["class_names"]):
        raise UserError("the classes of the dataset differ from those of the checkpoint")
    if meta.get("features"):
        check_origin(meta["features"], exp.eval_source.origin, "the checkpoint and of the data")
    # Overrides of the data can change the shape of the model, such as the input channels of its first layer.
    variables = merge_variables(exp.abstract_state().eval_variables, variables, (), args.checkpoint)
    out = results_folder(args.out or epath.Path(args.checkpoint) / "eval")
    step = int(checkpoint.name) if checkpoint.name.isdigit() else 0
    chosen = choice_text(checkpoint, args.which, meta)
    about: dict[str, Any] = {"checkpoint": chosen, "evals": {}}
    for name, evaluation in exp.evals.items():
        folder = eval_folder(config, out, name)
        result = evaluation.run(exp, variables, folder, step)
        if not is_lead():
            continue
        split = evaluation.split or config.data.eval_split
        if result.metrics:
            result.write(folder)
            print(f"{name}, split {split}:")
            print_metrics(result.metrics)
            about["evals"][name] = {"split": split, "metrics": dict(result.metrics)}
    about["config"] = config.to_dict()
    if is_lead():
        files.write(out / "evaluation.json", json.dumps(about, indent=1) + "\n")
        print(f"checkpoint: {chosen}\nresults: {out}")
    return 0
