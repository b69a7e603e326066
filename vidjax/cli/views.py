"""The command `vidjax views`."""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from vidjax import files
from vidjax.cli.common import add_config_argument, add_json_argument, reject_overrides
from vidjax.errors import UserError

if TYPE_CHECKING:
    from vidjax.tasks.views import ViewAccuracy

NAME = "views"
HELP = "Print and plot the accuracy from fewer views, computed from saved results."

_PRINTED = 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000  # clips, or random views


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results", nargs="+", metavar="RESULT", help="result.npz files, or folders that contain one"
    )
    parser.add_argument(
        "--seeds",
        action="store_true",
        help="the results are runs of one model with different seeds: print their mean and its interval",
    )
    text = "crops per clip, for results written by earlier versions, which lack it"
    parser.add_argument("--crops", type=int, metavar="N", help=text)
    add_config_argument(parser, "--config")
    parser.add_argument("--png", metavar="FILE", help="plot accuracy over views and cost")
    add_json_argument(parser)
    parser.epilog = (
        "Evaluate once with many views, such as vidjax eval --config.evals.val.clips=10 "
        "--config.evals.val.crops=3. A row TxC is the accuracy from T evenly spaced clips with C crops each "
        "(1 is the center crop), a row random that from random views; intervals are of 95 %. The cost of a "
        "view is counted from the config of the run, or from --config."
    )


def run(args: argparse.Namespace) -> int:
    if not args.config:
        reject_overrides(args)
    from vidjax.tasks.results import ClassificationResult
    from vidjax.tasks.views import difference, layout, view_accuracies

    paths = [epath.Path(p) for p in args.results]
    paths = [p / "result.npz" if p.is_dir() else p for p in paths]
    if len(set(paths)) < len(paths):
        raise UserError("a result is given twice")
    if args.seeds and len(paths) < 2:
        raise UserError("--seeds needs the results of two runs or more")
    results = [ClassificationResult.load(p) for p in paths]
    costs = [_gmacs(args, p, r.class_names) for p, r in zip(paths, results, strict=True)]
    if args.seeds:
        groups = {f"mean of {len(paths)} runs": results}
    else:
        groups = {n: [r] for n, r in zip(args.results, results, strict=True)}
    rows = {n: view_accuracies(group, args.crops) for n, group in groups.items()}
    gmacs = dict(zip(groups, costs))
    differences = {}
    for n, (r,) in [] if args.seeds else list(groups.items())[1:]:
        try:
            differences[n] = difference(r, results[0])
        except UserError as e:
            print(f"{n} is not compared with {args.results[0]}: {e}", file=sys.stderr)
    if args.png:
        _write_png(args.png, rows, gmacs)
    if args.json:
        found = {n: _as_json(len(g[0].ids), rows[n], gmacs[n]) for n, g in groups.items()}
        minus = {n: {k: float(x) for k, x in d._asdict().items()} for n, d in differences.items()}
        print(json.dumps({"results": found, "differences": minus}, indent=1))
        return 0
    for n, group in groups.items():
        print(f"{n}: {len(group[0].ids)} videos, {group[0].logits.shape[1]} views")
        if layout(group[0], args.crops) is None:
            print("the crops per clip are not in the file: use --crops N to list protocols")
        _print(rows[n], gmacs[n], "runs" if args.seeds else "videos")
    for n, d in differences.items():
        print(f"{n} minus {args.results[0]}, all views: {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]")
    if args.png:
        print(f"plot: {args.png}")
    return 0


def _gmacs(args: argparse.Namespace, path: epath.Path, class_names: Sequence[str]) -> float | None:
    """Returns the GMACs of a view of a result, or None if its config is not known."""
    from vidjax.config import load
    from vidjax.train.view_cost import config_of, view_gmacs

    if args.config:
        return view_gmacs(load(args.config, args.overrides), class_names)
    try:
        found = config_of(path)
        return found and view_gmacs(found[0], class_names, found[1])
    except UserError as e:
        print(f"the cost of {path} is unknown: {e}", file=sys.stderr)
        return None


def _as_json(videos: int, rows: "list[ViewAccuracy]", gmacs: float | None) -> dict[str, Any]:
    points = [
        {
            "protocol": r.name,
            "views": r.views,
            "top1": r.top1,
            "low": r.low,
            "high": r.high,
            "gmacs": gmacs and gmacs * r.views,
        }
        for r in rows
    ]
    return {"videos": videos, "gmacs_per_view": gmacs, "accuracies": points}


def _print(rows: "list[ViewAccuracy]", gmacs: float | None, over: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("protocol", box=None, pad_edge=False, header_style="bold")
    for heading in ("views", "top-1", f"95 % over {over}", "GMACs"):
        table.add_column(heading, justify="right")
    last = {r.crops: r for r in rows}
    for r in rows:
        if r.views // (r.crops or 1) in _PRINTED or r is last[r.crops]:
            cost = f"{gmacs * r.views:.4g}" if gmacs else "–"
            table.add_row(r.name, str(r.views), f"{r.top1:.3f}", f"[{r.low:.3f}, {r.high:.3f}]", cost)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


def _write_png(path: str, rows: "dict[str, list[ViewAccuracy]]", gmacs: dict[str, float | None]) -> None:
    from vidjax.reports.views import views_figure

    encoded = io.BytesIO()
    views_figure(rows, gmacs).savefig(encoded, format="png", dpi=130)
    try:
        files.write(path, encoded.getvalue())
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}") from None
