"""The training loop, shared by all models and objectives."""

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

import vidjax
from vidjax import files, interrupts, registry
from vidjax.checkpoint_io import check_meta
from vidjax.config import differences, resolve
from vidjax.data.pipeline import prefetch_to_device, train_batches
from vidjax.environment import git_commit
from vidjax.errors import MemoryErrors, UserError
from vidjax.layers.preprocess import normalize, statistics
from vidjax.tasks.results import ClassificationResult, MetricsResult
from vidjax.train.checkpoint import Checkpointer, DiskErrors
from vidjax.train.diagnose import explain_nonfinite
from vidjax.train.evaluation import evaluate_variables
from vidjax.train.experiment import Experiment, batch_text, build, initial_state, memory_hint
from vidjax.train.hosts import SharedFlag
from vidjax.train.metrics import MetricsWriter, Progress, Stopwatch
from vidjax.train.precise_bn import make_precise_bn
from vidjax.train.pretraining import evaluate_pretraining
from vidjax.train.report import report_runs
from vidjax.train.state import State

Result = ClassificationResult | MetricsResult


def train(config: ConfigDict, workdir: epath.PathLike) -> Result | None:
    """Trains a model, resuming from the latest checkpoint in `workdir` if there is one.

    Resuming is bit-identical: a run that was interrupted at any time ends with the same parameters as an
    uninterrupted run on the same devices. SIGTERM and Ctrl-C save a checkpoint before exiting.

    Args:
      config: a resolved config, see `vidjax.config`.
      workdir: output folder for config.json, metrics.jsonl, tensorboard/, checkpoints/ and bad_videos.jsonl.
        At the end, report.html, predictions.jsonl and result.npz are added, or pretraining.json and
        reconstructions/ for pretraining.

    Returns:
      The evaluation of the final weights, or None if the run was interrupted.

    Raises:
      UserError: an error that the user can fix, see `vidjax.errors`.
    """
    workdir = files.absolute(workdir)
    _check_workdir(workdir, config)
    exp = build(config)
    if registry.spec(config.model.name).task == "pretrain":
        exp.probe_sources  # noqa: B018  raise errors now instead of at the first evaluation
    lead = jax.process_index() == 0
    name = config.model.name + (" (tiny)" if config.model.tiny else "")
    with contextlib.ExitStack() as stack:
        stack.enter_context(MemoryErrors(memory_hint(config)))
        stack.enter_context(DiskErrors(workdir))
        stack.enter_context(interrupts.handled())
        checkpoints = stack.enter_context(contextlib.closing(Checkpointer(workdir, config.checkpoint.keep)))
        start = checkpoints.latest_step() or 0
        if start:
            state, meta = checkpoints.restore(exp.abstract_state())
            check_meta(meta, workdir, "fingerprint", "data")
            _check_data(meta, exp)
        else:
            state, meta = initial_state(exp), {}
        batches = train_batches(
            exp.train_source,
            config.data,
            config.batch,
            config.seed,
            host=jax.process_index(),
            hosts=jax.process_count(),
            report_dir=workdir,
        )
        stack.enter_context(contextlib.closing(batches))
        if start:
            batches.set_state(meta["data"])
        writer = stack.enter_context(contextlib.closing(MetricsWriter(workdir, start, active=lead)))
        progress = stack.enter_context(Progress(name, exp.steps, start, active=lead))
        progress.print(batch_text(exp))
        progress.print(exp.groups)
        if batches.note:
            progress.print(batches.note)
        if start:
            progress.print(f"resuming from step {start} of {exp.steps}")
        run = _Run(exp, workdir, checkpoints, writer, progress, batches)
        result = run.steps(state, start, evaluate_first=meta.get("evaluate", False))
    if result is None:
        return None
    if lead:
        result.write(workdir)
        if config.evals.report:
            report_runs(workdir / "report.html", name, {name: workdir}, exp.eval_source, config.data)
    return result


class _Run:
    """Runs the steps of one process, starting from a new or restored state."""

    def __init__(self, exp, workdir, checkpoints, writer, progress, batches):
        self.exp: Experiment = exp
        self.workdir: epath.Path = workdir
        self.checkpoints: Checkpointer = checkpoints
        self.writer: MetricsWriter = writer
        self.progress: Progress = progress
        self.batches = batches
        self.skipped = 0
        self.advised = False  # whether advice on data loading was printed
        self.recent: list[tuple[int, dict, dict]] = []  # steps that were not yet checked to be finite
        scale = statistics(registry.spec(exp.config.model.name), exp.config.data)
        prepare = functools.partial(normalize, **scale)
        across_hosts = exp.config.parallel.mode == "pmap"  # each host has batches of its own
        self.precise_bn = make_precise_bn(exp.model, prepare, across_hosts, exp.mesh)

    def steps(self, state: State, start: int, evaluate_first: bool) -> Result | None:
        """Runs the steps after `start`. Returns the last evaluation, or None if interrupted.

        With `evaluate_first`, the state of `start` is evaluated first, because its evaluation was
        interrupted.
        """
        exp, config = self.exp, self.exp.config
        total = exp.steps
        every_eval = round(config.evals.every_epochs * exp.steps_per_epoch) or total
        every_save = round(config.checkpoint.every_epochs * exp.steps_per_epoch) or total
        self.skipped = int(state.nonfinite)
        result, interval, watch, stop = None, [], Stopwatch(lambda: self.batches.cpu_seconds), SharedFlag()
        with contextlib.ExitStack() as saving:
            if evaluate_first or start == total:
                saving.enter_context(interrupts.saving())
                state, result = self.evaluate(state, start)
                if result is None:
                    return None  # the checkpoint is unchanged
            placed = exp.runner.place(state)
            device_batches: Iterator = prefetch_to_device(
                self.batches, exp.runner.batch_sharding, config.data.prefetch
            )
            for step in range(start + 1, total + 1):
                batch = watch.wait(device_batches)
                stopping = stop.share(interrupts.requested())  # before the step, so as not to wait for it
                placed, metrics = exp.runner.step(placed, {k: batch[k] for k in ("video", "label")})
                if step == start + 1:  # compilation is done, and there is progress to save
                    self.claim()
                    saving.enter_context(interrupts.saving())
                interval.append(metrics)
                self.recent.append((step, metrics, batch))
                self.check_finite(placed, keep=1)
                self.progress.advance(step)

                evaluating, stopped = step % every_eval == 0 or step == total, stopping()
                saved = step % every_save == 0 or step == total or stopped
                if step % config.log_every == 0 or evaluating or saved:
                    self.check_finite(placed, keep=0)
                    self.log(step, interval, watch)
                    interval = []
                if evaluating or saved:
                    with watch.pause():
                        state = exp.runner.read(placed)
                        result = None
                        if evaluating and not stopped:
                            state, result = self.evaluate(state, step)
                            placed = exp.runner.place(state)
                            stopped = result is None
                        self.checkpoints.save(
                            state,
                            self.meta(step) | {"evaluate": evaluating and result is None},
                            None if result is None else result.headline,
                        )
                if stopped:
                    self.checkpoints.wait()
                    self.progress.print(f"stopped and saved at step {step}; run the same command to resume")
                    return None
            self.checkpoints.wait()
        return result

    def claim(self) -> None:
        """Writes the config to the workdir, after the first step so that a failed start leaves no trace."""
        if jax.process_index() == 0:
            text = json.dumps(self.exp.config.to_dict(), indent=1)
            files.write(self.workdir / "config.json", text)

    def log(self, step: int, interval: list[dict], watch: Stopwatch) -> None:
        """Writes the averages since the previous call."""
        fetched = jax.device_get(interval)
        values = {k: float(np.mean([m[k] for m in fetched])) for k in fetched[0] if k != "nonfinite"}
        values["lr"] = float(self.exp.schedule(step - 1))
        values.update(watch.read(self.exp.config.batch))
        self.writer.write(step, "train", values, step / self.exp.steps_per_epoch)
        self.progress.report(step, values)
        seconds = values["step_time"] * len(interval)  # short intervals are dominated by prefetched batches
        busy = values["decode_cpu"] > 0.2 and seconds > 2
        if busy and not self.advised and (advice := self.batches.advice()):
            self.advised = True
            self.progress.print(
                f"{values['decode_cpu']:.0%} of the CPU time is spent on data loading: {advice}"
            )

    def check_finite(self, placed: Any, keep: int) -> None:
        """Checks the losses of all but the latest `keep` steps. Lagging behind avoids blocking the device."""
        while len(self.recent) > keep:
            step, metrics, batch = self.recent.pop(0)
            count = int(metrics["nonfinite"])
            if count == self.skipped:
                continue
            self.skipped = count
            ids = [self.exp.train_source[int(i)].id for i in np.ravel(_local(batch["index"]))]
            if self.exp.config.optimizer.nonfinite == "skip":
                self.progress.print(f"step {step}: not finite, skipped: batch {', '.join(ids)}")
                continue
            why = explain_nonfinite(self.exp, self.exp.runner.read(placed), batch)
            raise UserError(
                f"step {step}: {why}; batch {', '.join(ids)}. The last checkpoint is unaffected: lower "
                "optimizer.lr, set optimizer.clip_norm, or set optimizer.nonfinite=skip"
            )

    def precise(self, state: State) -> State:
        """Recomputes BatchNorm statistics from `evals.precise_bn_batches` batches, if set."""
        exp, config = self.exp, self.exp.config
        if not config.evals.precise_bn_batches or "batch_stats" not in state.model_state:
            return state
        batches = train_batches(
            exp.train_source,
            config.data,
            config.batch // config.parallel.accumulation,
            config.seed + 1,  # different clips than in training
            host=jax.process_index(),
            hosts=jax.process_count(),
        )
        on_device = prefetch_to_device(batches, exp.runner.batch_sharding, config.data.prefetch)
        try:
            clips = (b["video"] for b in itertools.islice(on_device, config.evals.precise_bn_batches))
            return state.replace(model_state=self.precise_bn(state.eval_variables, clips))
        finally:
            batches.close()

    def evaluate(self, state: State, step: int) -> tuple[State, Result | None]:
        """Evaluates on the test videos and writes the metrics.

        Returns:
          The state with the BatchNorm statistics used for evaluation, and the result, None if interrupted.
        """
        precise = self.precise(state)
        try:
            if registry.spec(self.exp.config.model.name).task == "pretrain":
                result = evaluate_pretraining(self.exp, precise.eval_variables, self.workdir, step)
            else:
                result = evaluate_variables(self.exp, precise.eval_variables, self.workdir)
        except interrupts.Stopped:
            return state, None
        self.writer.write(step, "val", result.metrics, step / self.exp.steps_per_epoch)
        text = "  ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in result.metrics.items())
        self.progress.print(f"step {step}: {text}")
        return precise, result

    def meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON metadata of a checkpoint."""
        source = self.exp.train_source
        return {
            "config": self.exp.config.to_dict(),
            "class_names": list(source.class_names),
            "fingerprint": source.fingerprint,
            "features": getattr(source, "origin", None),
            # The iterator is ahead because of prefetching; the next batch is that of the next step.
            "data": self.batches.get_state() | {"next_batch": step},
            "versions": {"vidjax": vidjax.__version__, "jax": jax.__version__},
            "commit": git_commit(),
        }


def _local(x: jax.Array) -> np.ndarray:
    return np.concatenate([np.asarray(s.data) for s in x.addressable_shards])


def _check_workdir(workdir: epath.Path, config: ConfigDict) -> None:
    for folder in (workdir, workdir / "checkpoints"):
        probe = folder / f".writable.{os.getpid()}"
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if folder.exists():
                probe.touch()
                probe.unlink()
        except OSError as e:
            raise UserError(
                f"cannot write to the workdir {folder}: {e.strerror or e}; use another --workdir"
            ) from None
    path = workdir / "config.json"
    try:
        old = json.loads(path.read_text()) if path.exists() else None
        if not isinstance(old, dict | None):
            raise ValueError("it holds no config")
    except (OSError, ValueError) as e:
        raise UserError(f"cannot read {path} ({e}): use another --workdir, or remove the file") from None
    # `resolve` adds the defaults of keys that are newer than the config.
    if old is not None and (changed := differences(resolve(old), config)):
        raise UserError(
            f"{workdir} belongs to another config ({'; '.join(changed)}): use another --workdir, or remove it"
        )


def _check_data(meta: dict[str, Any], exp: Experiment) -> None:
    if meta["fingerprint"] != exp.train_source.fingerprint:
        raise UserError("the training videos have changed since this run started: use another --workdir")
