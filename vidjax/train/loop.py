"""The training loop, shared by all models and tasks."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from vidjax import files, interrupts
from vidjax.checkpoint_io import check_meta, orbax_reads
from vidjax.config import comparable, differences, restore
from vidjax.data.pipeline import prefetch_to_device
from vidjax.environment import environment
from vidjax.errors import MemoryErrors, UserError
from vidjax.tasks.base import Result
from vidjax.train.checkpoint import Checkpointer, DiskErrors
from vidjax.train.diagnose import explain_nonfinite
from vidjax.train.experiment import Experiment, batch_text, build, initial_state, memory_hint
from vidjax.train.hosts import SharedLevel, check_same, shared
from vidjax.train.metrics import MetricsWriter, Progress, Stopwatch
from vidjax.train.precise_bn import make_precise_bn
from vidjax.train.staging import StagedCheckpointer
from vidjax.train.state import State
from vidjax.train.telemetry import Breakdown, Trace, Utilization, straggler

Results = dict[str, Result]
WORKDIRS = "gs://", "s3://"  # the object stores of which runs were tested
_SAVE, _STOP = 1, 2  # requests of a host; all hosts follow the highest


def train(
    config: ConfigDict, workdir: epath.PathLike, profile: tuple[int, int] | None = None
) -> Results | None:
    """Trains a model, resuming from the latest checkpoint in `workdir` if there is one.

    Resuming is bit-identical: a run that was interrupted at any time ends with the same parameters as an
    uninterrupted run on the same devices. SIGTERM and Ctrl-C save a checkpoint before exiting.

    Args:
      config: a resolved config, see `vidjax.config`.
      workdir: output folder for config.json, metrics.jsonl, tensorboard/, checkpoints/ and bad_videos.jsonl.
        At the end, report.html, timing.json and the results of the evaluations are added.
      profile: the first and the last step of a profiler trace in the folder profile/.

    Returns:
      The results of the evaluations of the final weights by name, or None if the run was interrupted.

    Raises:
      UserError: an error that the user can fix, see `vidjax.errors`.
    """
    workdir = files.absolute(workdir)
    check_same("config", comparable(config))
    _check_workdir(workdir, config)
    exp = build(config)
    for evaluation in exp.evals.values():
        evaluation.prepare(exp)  # raises errors now instead of at the first evaluation
    lead = jax.process_index() == 0
    name = config.model.name + (" (tiny)" if config.model.tiny else "")
    with contextlib.ExitStack() as stack:
        stack.enter_context(MemoryErrors(memory_hint(config)))
        stack.enter_context(DiskErrors(workdir))
        stack.enter_context(interrupts.handled())
        keep_every = round((config.checkpoint.keep_every_epochs or 0) * exp.steps_per_epoch)
        kind = Checkpointer if orbax_reads(workdir) else StagedCheckpointer
        checkpoints = kind(workdir, config.checkpoint.keep, keep_every)
        stack.enter_context(contextlib.closing(checkpoints))
        start = checkpoints.latest_step() or 0
        if start:
            state, meta = checkpoints.restore(exp.abstract_state())
            check_meta(meta, workdir, "fingerprint", "data")
            check_task(meta, config, workdir)
            _check_data(meta, exp)
        else:
            state, meta = initial_state(exp), {}
        batches = exp.batches(config.seed, config.batch, workdir)
        stack.enter_context(contextlib.closing(batches))
        if start:
            batches.set_state(meta["data"])
        writer = MetricsWriter(workdir, start, lead, config.to_dict())
        stack.enter_context(contextlib.closing(writer))
        progress = stack.enter_context(Progress(name, exp.steps, start, active=lead))
        progress.print(batch_text(exp))
        progress.print(exp.groups)
        progress.print(batches.setup)
        if batches.note:
            progress.print(batches.note)
        if start:
            progress.print(f"resuming from step {start} of {exp.steps}")
        trace = stack.enter_context(contextlib.closing(Trace(profile, workdir / "profile")))
        run = _Run(exp, workdir, checkpoints, writer, progress, batches, trace)
        results = run.steps(state, start, evaluate_first=meta.get("evaluate", False))
    if results is None:
        return None
    if lead:
        for key, result in results.items():
            if result.metrics:
                result.write(eval_folder(config, workdir, key))
        if config.report:
            from vidjax.train.report import report_runs  # not at the top: it imports Matplotlib

            source = exp.source(exp.evals[config.checkpoint.best].split)
            report_runs(workdir / "report.html", name, {name: workdir}, exp.task, source)
    return results


def eval_folder(config: ConfigDict, workdir: epath.Path, name: str) -> epath.Path:
    """Creates the folder of an evaluation: the workdir for `checkpoint.best`, else one named after it."""
    folder = workdir if name == config.checkpoint.best else workdir / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Run:
    """Runs the steps of one process, starting from a new or restored state."""

    def __init__(self, exp, workdir, checkpoints, writer, progress, batches, trace):
        self.exp: Experiment = exp
        self.workdir: epath.Path = workdir
        self.checkpoints: Checkpointer | StagedCheckpointer = checkpoints
        self.writer: MetricsWriter = writer
        self.progress: Progress = progress
        self.batches = batches
        self.trace: Trace = trace
        self.utilization = Utilization(exp)
        self.spent = Breakdown()
        self.slowest: str | None = None  # the last host that was named as the one that the others wait for
        self.saved = time.monotonic()  # when the last checkpoint was
        self.skipped = 0
        self.advised = False  # whether advice on data loading was printed
        self.recent: list[tuple[int, dict, dict]] = []  # steps that were not yet checked to be finite
        across_hosts = exp.config.parallel.mode == "pmap"  # each host has batches of its own
        self.precise_bn = make_precise_bn(exp.model, exp.task.inputs, across_hosts, exp.mesh)

    def steps(self, state: State, start: int, evaluate_first: bool) -> Results | None:
        """Runs the steps after `start`. Returns the last evaluations, or None if interrupted.

        With `evaluate_first`, the state of `start` is evaluated first, because its evaluation was
        interrupted.
        """
        exp, config = self.exp, self.exp.config
        total = exp.steps
        every_save = round(config.checkpoint.every_epochs * exp.steps_per_epoch) or total
        self.skipped = int(state.nonfinite)
        results: Results | None = {}
        interval, watch, wish = [], Stopwatch(lambda: self.batches.cpu_seconds), SharedLevel()
        with contextlib.ExitStack() as saving:
            if evaluate_first or start == total:
                saving.enter_context(interrupts.saving())
                state, results = self.evaluate(state, start)
                if results is None:
                    return None  # the checkpoint is unchanged
            placed = exp.runner.place(state)
            device_batches: Iterator = prefetch_to_device(
                self.batches, exp.runner.batch_sharding, config.data.prefetch
            )
            for step in range(start + 1, total + 1):
                batch = watch.wait(device_batches)
                wished = wish.share(self.wish())  # before the step, so as not to wait for it
                inputs = {k: batch[k] for k in ("inputs", "targets")}
                self.utilization.see(inputs)
                self.trace.before(step)
                started = time.perf_counter()
                placed, metrics = exp.runner.step(placed, inputs)
                if written := self.trace.after(step, metrics):
                    self.progress.print(written)
                self.spent.add("waiting for data", watch.last)
                if step == start + 1:  # compilation is done, and there is progress to save
                    self.spent.add("compilation", time.perf_counter() - started)
                    self.claim()
                    saving.enter_context(interrupts.saving())
                interval.append(metrics)
                self.recent.append((step, metrics, batch))
                self.check_finite(placed, keep=1)
                self.progress.advance(step)

                evaluating, level = bool(self.due(step)), wished()
                stopped = level == _STOP
                saved = step % every_save == 0 or step == total or level >= _SAVE
                if step % config.log_every == 0 or evaluating or saved:
                    self.check_finite(placed, keep=0)
                    self.log(step, interval, watch)
                    interval = []
                if evaluating or saved:
                    with watch.pause() as paused:
                        state = exp.runner.read(placed)
                        results = None
                        if evaluating and not stopped:
                            state, results = self.evaluate(state, step)
                            placed = exp.runner.place(state)
                            stopped = results is None
                        evaluated = paused.seconds
                        best = (results or {}).get(config.checkpoint.best)
                        self.writer.flush()
                        self.checkpoints.save(
                            state,
                            self.meta(step) | {"evaluate": evaluating and results is None},
                            None if best is None else best.headline,
                        )
                        self.saved = time.monotonic()
                        self.spent.add("evaluation", evaluated)
                        self.spent.add("saving", paused.seconds - evaluated)
                if stopped:
                    self.checkpoints.wait()
                    self.progress.print(f"stopped and saved at step {step}; run the same command to resume")
                    return None
            with watch.pause() as paused:
                self.checkpoints.wait()
            self.spent.add("saving", paused.seconds)
        if jax.process_index() == 0:
            self.progress.print(self.spent.text())
            files.write(self.workdir / "timing.json", json.dumps(self.spent.read(), indent=1) + "\n")
        return results

    def wish(self) -> int:
        """Returns the action that this host requests after the next step."""
        if interrupts.requested():
            return _STOP
        minutes = self.exp.config.checkpoint.every_minutes
        return _SAVE if minutes and time.monotonic() - self.saved > 60 * minutes else 0

    def due(self, step: int) -> list[str]:
        """Returns the names of the evaluations after a step; all of them after the last one."""
        total = self.exp.steps

        def interval(epochs: float) -> int:
            return round(epochs * self.exp.steps_per_epoch) or total

        return [n for n, e in self.exp.evals.items() if step == total or step % interval(e.every) == 0]

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
        values.update(self.utilization.read(values["step_time"]))
        self.writer.write(step, "train", values, step / self.exp.steps_per_epoch)
        self.progress.report(step, values)
        waits = shared("data_wait", values["data_wait"])
        slowest = straggler(waits)
        if slowest and slowest != self.slowest:
            wait = f"{waits[slowest]:.0%} of the time"
            self.progress.print(f"all hosts wait for {slowest}, which waits for data {wait}")
        self.slowest = slowest or self.slowest
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
        """Recomputes BatchNorm statistics from `model.precise_bn_batches` batches, if set."""
        exp, config = self.exp, self.exp.config
        if not config.model.precise_bn_batches or "batch_stats" not in state.model_state:
            return state
        # The seed samples different clips than in training.
        batches = exp.batches(config.seed + 1, config.batch // config.parallel.accumulation)
        on_device = prefetch_to_device(batches, exp.runner.batch_sharding, config.data.prefetch)
        try:
            clips = (b["inputs"] for b in itertools.islice(on_device, config.model.precise_bn_batches))
            return state.replace(model_state=self.precise_bn(state.eval_variables, clips))
        finally:
            batches.close()

    def evaluate(self, state: State, step: int) -> tuple[State, Results | None]:
        """Runs the evaluations that are due and writes their metrics.

        Returns:
          The state with the BatchNorm statistics used for evaluation, and the results by name, None if
          interrupted.
        """
        exp, results = self.exp, {}
        precise = self.precise(state)
        for name in self.due(step):
            try:
                folder = eval_folder(exp.config, self.workdir, name)
                result = exp.evals[name].run(exp, precise.eval_variables, folder, step)
            except interrupts.Stopped:
                return state, None
            results[name] = result
            if result.metrics:
                self.writer.write(step, name, result.metrics, step / exp.steps_per_epoch)
                text = "  ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in result.metrics.items())
                self.progress.print(f"step {step}: {text}")
        return precise, results

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
            "environment": environment(),
        }


def _local(x: jax.Array) -> np.ndarray:
    return np.concatenate([np.asarray(s.data) for s in x.addressable_shards])


def _check_workdir(workdir: epath.Path, config: ConfigDict) -> None:
    if files.is_remote(workdir) and not os.fspath(workdir).startswith(WORKDIRS):
        raise UserError(f"runs cannot be on {workdir}: use a local, gs:// or s3:// --workdir")
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
    # `restore` adds the defaults of keys that are newer than the config.
    if old is not None and (changed := differences(restore(old), config)):
        raise UserError(
            f"{workdir} belongs to another config ({'; '.join(changed)}): use another --workdir, or remove it"
        )


def check_task(meta: dict[str, Any], config: ConfigDict, source: epath.PathLike) -> None:
    """Raises `UserError` if a checkpoint is of another task than a config."""
    saved = restore(meta["config"]).task.name
    if saved != config.task.name:
        raise UserError(
            f"{source} was trained with task.name={saved}, not {config.task.name}: remove the override, or "
            "initialize a new run from it with init.path"
        )


def _check_data(meta: dict[str, Any], exp: Experiment) -> None:
    if meta["fingerprint"] != exp.train_source.fingerprint:
        raise UserError("the training videos have changed since this run started: use another --workdir")
