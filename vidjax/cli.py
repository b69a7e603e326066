"""The `vidjax` command line: arguments and output only."""

import argparse
import contextlib
import ctypes
import fnmatch
import json
import logging
import os
import sys
import traceback
from typing import Any

from absl import logging as absl_logging
from etils import epath

from vidjax import files, interrupts
from vidjax.errors import DiskFull, MemoryErrors, UserError

HOST_TIMEOUT = 60.0  # seconds, for commands without a config; see parallel.host_timeout
# Suffixes of --strip, and what Pillow calls the format.
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".pdf": "PDF"}
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # from <malloc.h>


def main(argv: list[str] | None = None) -> None:
    """Runs one command and exits: code 0 on success, 2 with a one-line message on a `UserError`."""
    argv = sys.argv[1:] if argv is None else argv
    _keep_freed_memory()
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(_should_log)
    for name in ("jax", "matplotlib"):  # matplotlib warns where there is no home folder
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("asyncio", "concurrent.futures"):  # a failed save is also raised
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):  # class names may not be encodable
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    try:
        with interrupts.handled():
            args.overrides = _overrides(rest)
            _check_empty(args)
            with MemoryErrors():
                code = args.run(args)
    except interrupts.Interrupted as e:
        interrupts.leave(e.code)
    except (Exception, SystemExit) as e:
        code = _report(e)
    sys.exit(code)


def _report(error: BaseException) -> int:
    """Prints the error that ended the command and returns the exit code; re-raises unexpected errors."""
    hosts = sys.modules.get("vidjax.train.hosts")
    if isinstance(error, OSError) and error.filename:  # a missing, forbidden or misplaced file
        error = UserError(f"{error.strerror}: {error.filename}; use another path, or change its permissions")
    if isinstance(error, ImportError) and "install" in str(error).lower():  # of gcsfs, for gs://
        error = UserError(str(error).partition("\n")[0])
    cause = hosts.explain(error) if hosts else error
    if isinstance(cause, BrokenPipeError):  # `vidjax models | head`
        sys.stderr.close()
        return 0
    if isinstance(cause, UserError):
        print(f"vidjax: {cause}", file=sys.stderr, flush=True)
        code = getattr(cause, "code", 2)
    elif hosts and hosts.joined():
        traceback.print_exception(cause)
        code = 1
    else:
        raise cause
    if isinstance(cause, DiskFull) or (hosts and hosts.joined()):
        os._exit(code)  # exit handlers would write to the disk and wait for the other processes
    return code


def _keep_freed_memory() -> None:
    """Makes glibc reuse the memory that a step frees.

    By default glibc returns large blocks to the kernel, which zeroes them on the next allocation. This takes
    a quarter of the time of a small step on the CPU.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, size in ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26), (_M_MMAP_THRESHOLD, 2**30)):
            mallopt(option, size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vidjax", description="Video understanding in JAX and Flax.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    p = command("train", _train, "Train a model, or resume a stopped run from its latest checkpoint.")
    _add_config_argument(p, "--config", required=True)
    p.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder for checkpoints, metrics and the report"
    )
    _add_cluster_arguments(p)
    p.epilog = "Override any config value with --config.KEY=VALUE, for example --config.optimizer.lr=1e-3"

    p = command("eval", _eval, "Evaluate a checkpoint on its test split.")
    _add_checkpoint_arguments(p)
    p.add_argument(
        "--out", metavar="DIR", help="folder for the results (default: eval/ in the checkpoint DIR)"
    )
    p.epilog = (
        "Override any config value with --config.KEY=VALUE, for example 10 clips and 3 crops per video: "
        "--config.evals.clips=10 --config.evals.crops=3"
    )
    _add_cluster_arguments(p)

    p = command("fuse", _fuse, "Combine the predictions of several models (late fusion).")
    p.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="result.npz files of the same videos, or folders that contain one",
    )
    p.add_argument("--out", required=True, metavar="DIR", help="folder for the combined results")
    p.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="weight of each RESULT in the average (default: equal)",
    )
    p.add_argument(
        "--svm",
        nargs="+",
        metavar="RESULT",
        help="combine with a linear SVM instead of an average, fitted to these results of the same models "
        "on the training videos",
    )
    p.add_argument("--c", type=float, default=1.0, help="regularization parameter C of the SVM (default: 1)")
    p.epilog = "Results on the training videos: vidjax eval --config.data.eval_split=train --out DIR"

    p = command("predict", _predict, "Classify video files.")
    p.add_argument("videos", nargs="+", metavar="VIDEO", help="video files")
    _add_checkpoint_arguments(p)
    p.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="clips sampled from each video (default: evals.clips of the config)",
    )
    p.add_argument("--top", type=int, default=5, metavar="K", help="number of classes to print (default: 5)")
    _add_json_argument(p)
    p.add_argument(
        "--strip", metavar="FILE.png", help="also save the input frames as an image, one per video"
    )
    p.add_argument(
        "--stream", action="store_true", help="predict frame by frame while decoding, in constant memory"
    )
    p.add_argument(
        "--every",
        metavar="N",
        help="with --stream, interval between predictions in seconds, or in frames as in 30f (default: 1)",
    )
    p.add_argument(
        "--fps", type=float, metavar="R", help="with --stream, frames per second (default: as in training)"
    )

    p = command("features", _features, "Extract features from a layer and write them to a file.")
    p.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video files, or dataset:SPLIT for a split of the dataset that the checkpoint was trained on",
    )
    _add_checkpoint_arguments(p)
    p.add_argument(
        "--layer", default="pre_logits", metavar="NAME", help="endpoint of the model (default: pre_logits)"
    )
    p.add_argument("--out", required=True, metavar="FILE", help="output file, .npz or .array_record")
    p.add_argument("--frames", action="store_true", help="write one row per frame instead of one per window")
    p.add_argument(
        "--overlap",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="overlap of consecutive windows, from 0 to below 1 (default: 0)",
    )
    p.add_argument("--dense", action="store_true", help="write the feature maps instead of their average")
    p.epilog = "Override any config value with --config.KEY=VALUE, for example --config.data.frames=32"
    _add_cluster_arguments(p)

    p = command("probe", _probe, "Evaluate cached features with a linear, attentive or kNN probe.")
    p.add_argument(
        "features",
        metavar="FILE",
        help="output of `vidjax features`, with {split} in place of train and test: feats_{split}.npz",
    )
    p.add_argument("--workdir", required=True, metavar="DIR", help="folder for the probe and its results")
    p.add_argument("--kind", default="linear", help="knn, linear (default), linear_bn or attentive")
    p.add_argument("--k", type=int, default=20, help="number of neighbors for --kind knn (default: 20)")
    p.epilog = (
        "Override any config value with --config.KEY=VALUE, for example --config.data.eval_split=val "
        "--config.optimizer.lr=1e-3"
    )

    p = command(
        "configs", _configs, "List the shipped configs with their model, dataset and expected top-1 accuracy."
    )
    p.add_argument("pattern", nargs="?", default="*", help='shell pattern of names, such as "kinetics400/*"')
    _add_json_argument(p)

    p = command(
        "config", _config, "Print all values of a config; * marks values changed by --config.KEY=VALUE."
    )
    _add_config_argument(p, "config")
    _add_json_argument(p)
    p.epilog = "Override any config value with --config.KEY=VALUE, for example --config.optimizer.lr=1e-3"

    p = command(
        "models", _models, "List the registered models with their input shape, year and temporal modeling."
    )
    p.add_argument("pattern", nargs="?", default="*", help='shell pattern of names, such as "r*_18"')
    _add_json_argument(p)

    p = command(
        "describe", _describe, "Print a model's parameters, GMACs, memory, layers and published results."
    )
    p.add_argument("name", help="a registered model, see `vidjax models`")
    p.add_argument("--frames", type=int, metavar="T", help="frames of the input (default: as published)")
    p.add_argument(
        "--size", type=int, metavar="S", help="height and width of the input (default: as published)"
    )
    p.add_argument("--classes", type=int, metavar="K", help="number of classes (default: as published)")
    p.add_argument(
        "--depth", type=int, default=1, metavar="N", help="levels of submodules to list (default: 1)"
    )
    p.add_argument(
        "--memory", action="store_true", help="compile a training step and print the memory it needs"
    )
    _add_json_argument(p)

    p = command("convert", _convert, "Convert pretrained weights to a vidjax checkpoint.")
    p.add_argument("source", metavar="SRC", help="weights file of another project, or a vidjax checkpoint")
    p.add_argument("--model", required=True, metavar="NAME", help="a registered model, see `vidjax models`")
    p.add_argument("--out", required=True, metavar="DIR", help="folder of the new checkpoint")
    p.add_argument(
        "--origin", metavar="O", help="project the weights come from, if ambiguous: torchvision, timm, ..."
    )
    p.add_argument(
        "--num-classes",
        type=int,
        metavar="K",
        help="number of classes; if it differs from the weights', the classifier is newly initialized",
    )
    p.add_argument("--class-names", metavar="FILE", help="text file with one class name per line")

    p = command("export", _export, "Export a checkpoint in another project's weight format.")
    p.add_argument("checkpoint", metavar="DIR", help="a workdir, or one checkpoint")
    _add_which(p)
    p.add_argument("--to", required=True, metavar="O", help="target project: torchvision, timm, ...")
    p.add_argument("--out", required=True, metavar="FILE.safetensors", help="output file")

    p = command("demo", _demo, "Run a small demo: pretrain without labels, fine-tune with few, and compare.")
    p.add_argument("--workdir", default="runs/demo", metavar="DIR", help="output folder (default: runs/demo)")
    return parser


def _add_config_argument(p: argparse.ArgumentParser, name: str, **options: Any) -> None:
    text = (
        "config file or name of a shipped config (see `vidjax configs`); ARG is its argument, such as smoke"
    )
    p.add_argument(name, metavar="FILE.py[:ARG]", help=text, **options)


def _add_json_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("--json", action="store_true", help="print JSON")


def _add_checkpoint_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--checkpoint", required=True, metavar="DIR", help="a workdir, or one checkpoint in it")
    _add_which(p)


def _add_which(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--which",
        default="last",
        metavar="last|best|STEP",
        help="which checkpoint of a workdir: last (default), best (highest accuracy on the split evaluated "
        "during training), or a step number",
    )


def _folder(path: epath.PathLike) -> epath.Path:
    """Creates a folder for results."""
    path = epath.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot create the folder {path}: {e.strerror or e}") from None
    return path


def _add_cluster_arguments(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("multiple hosts (run the same command on each)")
    group.add_argument("--distributed", action="store_true", help="join the other hosts of a pod or cluster")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, if not detected")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes, if not detected")
    group.add_argument("--process", type=int, metavar="I", help="index of this process, if not detected")


def _join_hosts(args: argparse.Namespace, timeout: float) -> None:
    if args.distributed:
        from vidjax.train import hosts

        hosts.join(args.coordinator, args.processes, args.process, timeout)
    elif any(x is not None for x in (args.coordinator, args.processes, args.process)):
        raise UserError("--coordinator, --processes and --process are for --distributed: add it")


def _should_log(record: logging.LogRecord) -> bool:
    """Filters out checkpoints without a metric (expected) and a full disk (reported by the main thread)."""
    text = f"{record.getMessage()} {record.exc_info and record.exc_info[1]}".lower()
    return not any(phrase in text for phrase in ("tracked_metric", "save finalize", *DiskFull.SIGNS))


def _overrides(rest: list[str]) -> list[str]:
    """Parses overrides: ["--config.a=1", "--config.b", "2"] -> ["a=1", "b=2"]."""
    found, rest = [], list(rest)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--config."):
            raise UserError(f"unknown argument '{flag}': see vidjax COMMAND --help")
        text = flag.removeprefix("--config.")
        if "=" not in text and rest and not rest[0].startswith("--"):
            text += "=" + rest.pop(0)
        found.append(text)
    return found


def _check_empty(args: argparse.Namespace) -> None:
    """Raises `UserError` for an empty argument, which as a path would be the current folder."""
    for name, value in vars(args).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"the argument '{name.replace('_', '-')}' is empty: is a shell variable unset?")


def _no_overrides(args: argparse.Namespace) -> None:
    if args.overrides:
        raise UserError("this command does not accept --config.KEY arguments")


def _lead() -> bool:
    """Returns whether this process prints and writes on behalf of all hosts."""
    import jax

    return jax.process_index() == 0


def _train(args: argparse.Namespace) -> int:
    from vidjax.config import load
    from vidjax.train.loop import train

    config = load(args.config, args.overrides)
    _join_hosts(args, config.parallel.host_timeout)
    result = train(config, args.workdir)
    if result is not None and _lead():
        _print_metrics(result.metrics)
        report = epath.Path(args.workdir) / "report.html"
        if config.evals.report and report.exists():
            print(f"report: {report}")
    return 0


def _eval(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import check_meta, choice_text, find_checkpoint, load_variables, merge_variables
    from vidjax.config import resolve
    from vidjax.data.datasets.features import check_origin
    from vidjax.registry import spec
    from vidjax.train.evaluation import evaluate_variables
    from vidjax.train.experiment import build
    from vidjax.train.pretraining import evaluate_pretraining

    _join_hosts(args, HOST_TIMEOUT)
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
    out = _folder(args.out or epath.Path(args.checkpoint) / "eval")
    if pretrained:
        step = int(checkpoint.name) if checkpoint.name.isdigit() else 0
        result, written = evaluate_pretraining(exp, variables, out, step), "reconstructions"
    else:
        result, written = evaluate_variables(exp, variables, out), "predictions.jsonl"
    if _lead():
        result.write(out)
        _print_metrics(result.metrics)
        chosen, split = choice_text(checkpoint, args.which, meta), exp.config.data.eval_split
        about = {"checkpoint": chosen, "split": split, "metrics": result.metrics}
        files.write(out / "evaluation.json", json.dumps(about, indent=1) + "\n")
        print(f"checkpoint: {chosen}")
        print(f"split: {split}\n{written.partition('.')[0]}: {out / written}")
    return 0


def _fuse(args: argparse.Namespace) -> int:
    _no_overrides(args)
    from vidjax.tasks.fusion import average, svm
    from vidjax.tasks.results import ClassificationResult

    if args.svm and args.weights:
        raise UserError("--weights applies to the average only: leave it out with --svm")

    def read(paths: list[str]) -> list[ClassificationResult]:
        found = (epath.Path(p) for p in paths)
        return [ClassificationResult.load(f / "result.npz" if f.is_dir() else f) for f in found]

    results = read(args.results)
    fused = svm(read(args.svm), results, args.c) if args.svm else average(results, args.weights)
    out = _folder(args.out)
    fused.save(out / "result.npz")
    fused.write_predictions(out / "predictions.jsonl")
    for path, result in zip((*args.results, "fused"), (*results, fused), strict=True):
        print(f"{result.metrics['video_top1']:.4f}  video top-1 of {path}")
    print(f"predictions: {out / 'predictions.jsonl'}")
    return 0


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


def _predict(args: argparse.Namespace) -> int:
    _no_overrides(args)
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


def _features(args: argparse.Namespace) -> int:
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.features import cache_features

    _join_hosts(args, HOST_TIMEOUT)
    done = cache_features(
        args.videos,
        find_checkpoint(args.checkpoint, args.which),
        args.layer,
        args.out,
        dense=args.dense,
        frames=args.frames,
        overlap=args.overlap,
        overrides=args.overrides,
    )
    if not _lead():
        return 0
    for _, error in done.bad:
        print(f"vidjax: {error}", file=sys.stderr)
    shape = "x".join(map(str, done.meta["shape"]))
    print(f"{args.out}: {done.videos} videos, {done.rows} rows of {shape}")
    print(f"{done.meta['model']} {done.meta['layer']}, weights {done.meta['weights']}")
    return 2 if done.bad else 0


def _probe(args: argparse.Namespace) -> int:
    from vidjax.probe import probe

    result = probe(args.features, args.workdir, args.kind, args.k, args.overrides)
    if result is not None:
        _print_metrics(result.metrics)
    return 0


def _configs(args: argparse.Namespace) -> int:
    _no_overrides(args)
    from vidjax.config import load, shipped_names

    rows = []
    for name in shipped_names(args.pattern):
        config = load(name)
        rows.append(
            {
                "config": name,
                "model": config.model.name,
                "dataset": config.data.name if config.data.name != "video_folder" else name.split("/")[0],
                "top1": config.expected.top1,
                "source": config.expected.source,
            }
        )
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        raise UserError(f"no config matches '{args.pattern}': run `vidjax configs` to list all configs")
    widths = [max(len(r[key]) for r in rows) for key in ("config", "model", "dataset")]
    for r in rows:
        cells = (f"{r[key]:{w}}" for key, w in zip(("config", "model", "dataset"), widths))
        top1 = f"{r['top1']:5.1f}" if r["top1"] is not None else "    –"
        print(*cells, top1, r["source"].partition(";")[0], sep="  ")
    return 0


def _config(args: argparse.Namespace) -> int:
    from vidjax.config import flatten, load

    config = load(args.config, args.overrides)
    if args.json:
        print(json.dumps(config.to_dict(), indent=1))
        return 0
    before = flatten(load(args.config))
    for key, value in flatten(config).items():
        changed = key not in before or before[key] != value
        print(
            f"{'*' if changed else ' '} {key} = {value!r}"
            + (f"  (was {before.get(key)!r})" if changed else "")
        )
    return 0


def _models(args: argparse.Namespace) -> int:
    _no_overrides(args)
    # Generated by `python -m vidjax.analysis.index`, because importing the models takes more than a second.
    index = json.loads((epath.Path(__file__).parent / "models" / "index.json").read_text("utf-8"))
    rows = [row for row in index if fnmatch.fnmatch(row["name"], args.pattern)]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        raise UserError(f"no model matches '{args.pattern}': run `vidjax models` to list all models")
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['input_text']:>14}  {row['year']}  {row['temporal']}")
    return 0


def _describe(args: argparse.Namespace) -> int:
    _no_overrides(args)
    import vidjax.models  # noqa: F401
    from vidjax.analysis.describe import describe, page

    row = describe(
        args.name,
        frames=args.frames,
        size=args.size,
        num_classes=args.classes,
        depth=args.depth,
        memory=args.memory,
    )
    if args.json:
        print(json.dumps(row, indent=1))
    else:
        from rich.console import Console

        Console(soft_wrap=True, highlight=False).print(page(row))
    return 0


def _convert(args: argparse.Namespace) -> int:
    _no_overrides(args)
    from vidjax.convert import convert_file

    names = None
    if args.class_names:
        try:
            names = epath.Path(args.class_names).read_bytes().decode().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"cannot read the class names in {args.class_names}: {e}") from None
    weights = convert_file(args.source, args.model, args.out, args.origin, args.num_classes, names)
    for note in weights.notes:
        print(f"vidjax: {note}", file=sys.stderr)
    print(f"{args.model} from {args.source} ({weights.origin}): {args.out}")
    return 0


def _export(args: argparse.Namespace) -> int:
    _no_overrides(args)
    from vidjax.checkpoint_io import find_checkpoint
    from vidjax.convert import export_file

    checkpoint = find_checkpoint(args.checkpoint, args.which)
    print(f"{export_file(checkpoint, args.to, args.out)} as {args.to}: {args.out}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    _no_overrides(args)
    from vidjax.demo import run_demo

    run_demo(epath.Path(args.workdir))
    return 0


def _print_metrics(metrics: dict[str, float]) -> None:
    for key, value in metrics.items():
        print(f"{key:20} {value:.4f}")
