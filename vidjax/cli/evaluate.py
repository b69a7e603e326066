"""The command `vidjax eval`."""

import argparse
import json

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
HELP = "Evaluate a checkpoint on its test split."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for the results (default: eval/ in the checkpoint DIR)"
    )
    add_cluster_arguments(parser)
    parser.epilog = (
        "Override any config value with --config.KEY=VALUE, for example 10 clips and 3 crops per video: "
        "--config.evals.clips=10 --config.evals.crops=3"
    )


def run(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import check_meta, choice_text, find_checkpoint, load_variables, merge_variables
    from vidjax.config import resolve
    from vidjax.data.datasets.features import check_origin
    from vidjax.registry import spec
    from vidjax.train.evaluation import evaluate_variables
    from vidjax.train.experiment import build
    from vidjax.train.pretraining import evaluate_pretraining

    join_hosts(args, HOST_TIMEOUT)
    checkpoint = find_checkpoint(args.checkpoint, args.which)
    variables, meta = load_variables(checkpoint)
    check_meta(meta, checkpoint, "config", "class_names")
    exp = build(resolve(meta["config"], args.overrides))
    pretrained = spec(exp.config.model.name).task == "pretrain"  # these models have no classes
    if not pretrained and exp.eval_source.class_names != tuple(meta["class_names"]):
        raise UserError("the classes of the dataset differ from those of the checkpoint")
    if meta.get("features"):
        check_origin(meta["features"], exp.eval_source.origin, "the checkpoint and of the data")
    # Overrides of the data can change the shape of the model, such as the input channels of its first layer.
    variables = merge_variables(exp.abstract_state().eval_variables, variables, (), args.checkpoint)
    out = results_folder(args.out or epath.Path(args.checkpoint) / "eval")
    if pretrained:
        step = int(checkpoint.name) if checkpoint.name.isdigit() else 0
        result, written = evaluate_pretraining(exp, variables, out, step), "reconstructions"
    else:
        result, written = evaluate_variables(exp, variables, out), "predictions.jsonl"
    if is_lead():
        result.write(out)
        print_metrics(result.metrics)
        chosen, split = choice_text(checkpoint, args.which, meta), exp.config.data.eval_split
        about = {"checkpoint": chosen, "split": split, "metrics": result.metrics}
        files.write(out / "evaluation.json", json.dumps(about, indent=1) + "\n")
        print(f"checkpoint: {chosen}")
        print(f"split: {split}\n{written.partition('.')[0]}: {out / written}")
    return 0
