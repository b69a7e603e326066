"""The command `vidjax sweep`."""

import argparse
import shlex
import sys

from etils import epath

from vidjax.cli.common import add_config_argument
from vidjax.errors import UserError

NAME = "sweep"
HELP = "Train every combination of config values and seeds, and compare the results."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, "config", nargs="?")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="values of a config key; repeat it for other keys",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs of each point (default: 1); seed counts up"
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder of the runs and the summary")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time, each with its own share of the cores and GPUs (default: 1)",
    )
    parser.add_argument(
        "--submit",
        metavar="TEMPLATE",
        help="run this command for each point instead of training here, such as 'sbatch train.sh {command}'; "
        "{name} and {workdir} are those of the run",
    )
    parser.add_argument("--list", action="store_true", help="print the commands without running them")
    parser.add_argument("--summary", action="store_true", help="summarize the runs without training")
    parser.epilog = (
        "Run the same command again to resume; without a config, the last sweep of the workdir is resumed. "
        "Override config values of all points with --config.KEY=VALUE. The exit code is 1 if a point failed."
    )


def run(args: argparse.Namespace) -> int:
    from vidjax import files
    from vidjax.reports.sweep import table, write_summary
    from vidjax.sweep import points as sweep
    from vidjax.sweep import run as runner

    workdir = epath.Path(args.workdir)
    if args.config:
        if args.seeds < 1:
            raise UserError(f"--seeds must be at least 1, got {args.seeds}")
        task = sweep.Sweep(args.config, tuple(args.overrides), sweep.parse_grid(args.grid), args.seeds)
    elif args.grid or args.overrides or args.seeds != 1:
        raise UserError("give the config of the sweep: vidjax sweep CONFIG --grid KEY=VALUE,VALUE")
    else:
        task = sweep.Sweep.read(workdir)
    points = sweep.points(task, workdir)
    if args.list:
        print("\n".join(map(shlex.join, sweep.commands(points, args.submit))))
        return 0
    failed, stopped = [], False
    if args.submit:
        sweep.commands(points, args.submit)  # raises errors before anything is written
        task.write(workdir)
        failed = sweep.submit(points, args.submit)
    elif not args.summary:
        if files.is_remote(workdir):
            raise UserError(f"runs of this machine need a local --workdir, not {workdir}; or use --submit")
        task.write(workdir)
        failed, stopped = runner.run(points, workdir, args.jobs)
    if args.summary or any(point.result() for point in points):
        summary = sweep.summarize(task, points)
        paths = write_summary(summary, workdir)
        print(f"\n{table(summary)}\n\nsummary: {', '.join(str(p) for p in paths)}")
    if stopped:
        print("vidjax: interrupted; run the same command again to resume", file=sys.stderr)
    if failed:
        print(f"vidjax: {len(failed)} of {len(points)} points failed: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed or stopped else 0
