"""The command `vidjax report`."""

import argparse

from etils import epath

from vidjax.cli.common import reject_overrides
from vidjax.errors import UserError

NAME = "report"
HELP = "Write an HTML report on one or more finished runs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="workdirs of `vidjax train`")
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the report")
    parser.add_argument("--title", metavar="TEXT", help="heading (default: the model of the last run)")


def run(args: argparse.Namespace) -> int:
    reject_overrides(args)
    from vidjax.train.experiment import create_parts, load_sources
    from vidjax.train.report import read_config, report_runs

    workdirs = {epath.Path(w).name: epath.Path(w) for w in args.workdirs}
    if len(workdirs) < len(args.workdirs):
        raise UserError("two of the workdirs have the same name, by which the report identifies them")
    config = read_config(list(workdirs.values())[-1])
    config.data.eval_split = config.evals[config.checkpoint.best].split or config.data.eval_split
    train_source, source = load_sources(config)
    _, task = create_parts(config, train_source.class_names)
    report_runs(args.out, args.title or config.model.name, workdirs, task, source)
    print(f"report: {args.out}")
    return 0
