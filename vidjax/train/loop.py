"""The training loop. There is one; a method is an objective, never another loop."""

import functools
import itertools
import json
import math
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import vidjax
from vidjax import registry
from vidjax.config import differences, resolve
from vidjax.data.pipeline import Clip, eval_batches, prefetch_to_device, train_batches
from vidjax.environment import git_commit
from vidjax.errors import UserError
from vidjax.evals.classification import ClassificationResult, evaluate
from vidjax.evals.pretraining import PretrainingResult
from vidjax.layers.preprocess import normalize
from vidjax.train.checkpoint import Checkpointer, DiskErrors
from vidjax.train.diagnose import explain_nonfinite
from vidjax.train.experiment import Experiment, batch_text, build, evaluation_data, initial_state
from vidjax.train.metrics import MetricsWriter, Progress, Stopwatch
from vidjax.train.precise_bn import precise_bn
from vidjax.train.pretraining import evaluate_pretraining, probe_sources
from vidjax.train.report import report_runs
from vidjax.train.sharding import BATCH
from vidjax.train.state import State

Result = ClassificationResult | PretrainingResult


def train(config: ConfigDict, workdir: str | pathlib.Path) -> Result | None:
    """Runs an experiment, or goes on with it where `workdir` holds a part of it.

    A run that was stopped at any moment and started again ends with the same parameters, bit for bit, as one
    that was not, on the same devices. SIGTERM and Ctrl-C save before they end it.

    Args:
      config: resolved, see `vidjax.config`.
      workdir: gets config.json, metrics.jsonl, tensorboard/, checkpoints/, bad_videos.jsonl, and at the end
        report.html, predictions.jsonl and result.npz, or, of a run without labels, pretraining.json and
        reconstructions/.

    Returns:
      The evaluation of the final weights; None where the run was asked to stop before its end.

    Raises:
      UserError: what a person can cause; see `vidjax.errors`.
    """
    workdir = pathlib.Path(workdir)
    _check_workdir(workdir, config)
    exp = build(config)
    if registry.spec(config.model.name).task == "pretrain":
        probe_sources(exp)  # raises now, and not when the first evaluation comes
    lead = jax.process_index() == 0
    checkpoints = Checkpointer(workdir, config.checkpoint.keep)
    start = checkpoints.latest_step() or 0
    if start:
        state, meta = checkpoints.restore(exp.abstract_state())
        _check_data(meta, exp)
    else:
        state, meta = initial_state(exp), {}
    if lead:
        (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=1))
    batches = train_batches(
        exp.train_source,
        config.data,
        config.batch,
        config.seed,
        host=jax.process_index(),
        hosts=jax.process_count(),
        report_dir=workdir,
    )
    if start:
        batches.set_state(meta["data"])

    writer = MetricsWriter(workdir, start, active=lead)
    name = config.model.name + (" (tiny)" if config.model.tiny else "")
    with (
        DiskErrors(workdir),
        Progress(name, exp.steps, start, active=lead) as progress,
        _StopSignal() as stop,
    ):
        progress.say(batch_text(exp))
        if start:
            progress.say(f"going on from step {start} of {exp.steps}")
        run = _Run(exp, workdir, checkpoints, writer, progress, batches)
        try:
            state, result = run.steps(state, start, stop)
        finally:
            batches.close()
            writer.close()
    checkpoints.close()
    if result is None:
        return None
    if lead:
        result.write(workdir)
        if config.evals.report:
            report_runs(workdir / "report.html", name, {name: workdir}, exp.eval_source, config.data)
    return result


class _Run:
    """One pass through the steps, from wherever the last one ended."""

    def __init__(self, exp, workdir, checkpoints, writer, progress, batches):
        self.exp: Experiment = exp
        self.workdir: pathlib.Path = workdir
        self.checkpoints: Checkpointer = checkpoints
        self.writer: MetricsWriter = writer
        self.progress: Progress = progress
        self.batches = batches
        self.skipped = 0
        self.recent: list[tuple[int, dict, dict]] = []  # steps not yet known to be finite

    def steps(self, state: State, start: int, stop: "_StopSignal") -> tuple[State, Result | None]:
        exp, config = self.exp, self.exp.config
        total = exp.steps
        every_eval = round(config.evals.every_epochs * exp.steps_per_epoch) or total
        every_save = round(config.checkpoint.every_epochs * exp.steps_per_epoch) or total
        self.skipped = int(state.nonfinite)
        placed = exp.runner.place(state)
        device_batches: Iterator = prefetch_to_device(
            self.batches, exp.runner.batch_sharding, config.data.prefetch
        )
        result, interval, watch = None, [], Stopwatch()
        if start == total:  # finished before, but killed before the end was written
            result = self.evaluate(state, total)
        for step in range(start + 1, total + 1):
            batch = watch.wait(device_batches)
            placed, metrics = exp.runner.step(placed, {k: batch[k] for k in ("video", "label")})
            interval.append(metrics)
            self.recent.append((step, metrics, batch))
            self.check_finite(placed, keep=1)
            self.progress.advance(step)

            evaluating, stopping = step % every_eval == 0 or step == total, stop.requested(step)
            saving = step % every_save == 0 or step == total or stopping
            if step % config.log_every == 0 or evaluating or saving:
                self.check_finite(placed, keep=0)
                self.log(step, interval, watch)
                interval = []
            if evaluating or saving:
                with watch.pause():
                    state = exp.runner.read(placed)
                    metric = None
                    if evaluating:
                        state = self.precise(state)
                        placed = exp.runner.place(state)
                        result = self.evaluate(state, step)
                        metric = result.headline
                    self.checkpoints.save(state, self.meta(step), metric)
            if stopping and step < total:
                self.checkpoints.wait()
                self.progress.say(f"stopped and saved at step {step}; the same command goes on from here")
                return state, None
        self.checkpoints.wait()
        return exp.runner.read(placed), result

    def log(self, step: int, interval: list[dict], watch: Stopwatch) -> None:
        """Writes the averages since the last log."""
        fetched = jax.device_get(interval)
        values = {k: float(np.mean([m[k] for m in fetched])) for k in fetched[0] if k != "nonfinite"}
        values["lr"] = float(self.exp.schedule(step - 1))
        values.update(watch.read(self.exp.config.batch))
        self.writer.write(step, "train", values, step / self.exp.steps_per_epoch)
        self.progress.report(step, values)

    def check_finite(self, placed: Any, keep: int) -> None:
        """Looks at all but the newest `keep` steps; one step behind, the device is never kept waiting."""
        while len(self.recent) > keep:
            step, metrics, batch = self.recent.pop(0)
            count = int(metrics["nonfinite"])
            if count == self.skipped:
                continue
            self.skipped = count
            ids = [self.exp.train_source[int(i)].id for i in np.ravel(_local(batch["index"]))]
            if self.exp.config.optimizer.nonfinite == "skip":
                self.progress.say(f"step {step}: not finite, skipped: batch {', '.join(ids)}")
                continue
            why = explain_nonfinite(self.exp, self.exp.runner.read(placed), batch)
            raise UserError(
                f"step {step}: {why}; batch {', '.join(ids)}. The last checkpoint is good: lower "
                "optimizer.lr, set optimizer.clip_norm, or optimizer.nonfinite=skip"
            )

    def precise(self, state: State) -> State:
        """The state with BatchNorm's statistics taken over `evals.precise_bn_batches` batches, if any."""
        exp, config = self.exp, self.exp.config
        if not config.evals.precise_bn_batches or "batch_stats" not in state.model_state:
            return state
        batches = train_batches(
            exp.train_source,
            config.data,
            config.batch // config.parallel.accumulation,
            config.seed + 1,  # other clips than the steps'
            host=jax.process_index(),
            hosts=jax.process_count(),
        )
        on_device = prefetch_to_device(batches, exp.runner.batch_sharding, config.data.prefetch)
        try:
            clips = (b["video"] for b in itertools.islice(on_device, config.evals.precise_bn_batches))
            spec = registry.spec(config.model.name)
            prepare = functools.partial(normalize, mean=spec.mean, std=spec.std)
            across = config.parallel.mode == "pmap"  # there, a batch is one host's
            return state.replace(
                model_state=precise_bn(exp.model, state.eval_variables, clips, prepare, across)
            )
        finally:
            batches.close()

    def evaluate(self, state: State, step: int) -> Result:
        """Evaluates on the test videos and writes the metrics."""
        if registry.spec(self.exp.config.model.name).task == "pretrain":
            result = evaluate_pretraining(self.exp, state.eval_variables, self.workdir, step)
        else:
            result = evaluate_variables(self.exp, state.eval_variables, self.workdir)
        self.writer.write(step, "val", result.metrics, step / self.exp.steps_per_epoch)
        shown = "  ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in result.metrics.items())
        self.progress.say(f"step {step}: {shown}")
        return result

    def meta(self, step: int) -> dict[str, Any]:
        """What a checkpoint says beside its arrays."""
        source = self.exp.train_source
        return {
            "config": self.exp.config.to_dict(),
            "class_names": list(source.class_names),
            "fingerprint": source.fingerprint,
            "features": getattr(source, "origin", None),
            # The iterator is ahead by what is prefetched; the next batch is that of the next step.
            "data": self.batches.get_state() | {"next_batch": step},
            "versions": {"vidjax": vidjax.__version__, "jax": jax.__version__},
            "commit": git_commit(),
        }


def evaluate_variables(
    exp: Experiment, variables: Any, report_dir: pathlib.Path | None = None
) -> ClassificationResult:
    """Evaluates `variables` on the test views of the experiment's evaluation videos."""
    config, evals = exp.config, exp.config.evals
    devices = exp.mesh.shape["data"] * exp.mesh.shape["fsdp"]
    shared = jax.process_count() if config.parallel.mode == "pmap" else 1  # there, a mesh is one host's
    multiple = math.lcm(devices * shared, jax.process_count())
    batch = -(-(evals.batch or config.batch) // multiple) * multiple
    batches = eval_batches(
        exp.eval_source,
        evaluation_data(config),
        batch,
        evals.clips,
        evals.crops,
        host=jax.process_index(),
        hosts=jax.process_count(),
        report_dir=report_dir,
    )
    sharding = exp.runner.batch_sharding

    def predict(video: Clip) -> np.ndarray:
        video = jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), video)
        logits = exp.predict(variables, video)
        return _gather(multihost_utils.global_array_to_host_local_array(logits, exp.mesh, BATCH))

    # Every host sees the labels of all; the videos stay where they were decoded.
    gathered = ({k: v if k == "video" else _gather(v) for k, v in b.items()} for b in batches)
    ids = [exp.eval_source[i].id for i in range(len(exp.eval_source))]
    return evaluate(predict, gathered, exp.eval_source.class_names, ids)


def _gather(x: Any) -> np.ndarray:
    return np.asarray(x) if jax.process_count() == 1 else multihost_utils.process_allgather(x, tiled=True)


def _local(x: jax.Array) -> np.ndarray:
    return np.concatenate([np.asarray(s.data) for s in x.addressable_shards])


def _check_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot make the workdir {workdir}: {e.strerror}") from None
    old = workdir / "config.json"
    # Resolved, an older config has the defaults of keys that came since.
    if old.is_file() and (changed := differences(resolve(json.loads(old.read_text())), config)):
        raise UserError(
            f"{workdir} belongs to another config ({'; '.join(changed)}): use another --workdir, or remove it"
        )


def _check_data(meta: dict[str, Any], exp: Experiment) -> None:
    if meta["fingerprint"] != exp.train_source.fingerprint:
        raise UserError("the training videos are not those this run began with: use another --workdir")


class _StopSignal:
    """Notes SIGTERM and Ctrl-C; a second Ctrl-C is not caught."""

    def __enter__(self) -> "_StopSignal":
        self._seen = False
        self._old = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for s, handler in self._old.items():
            signal.signal(s, handler)

    def _note(self, number: int, frame: Any) -> None:
        self._seen = True
        signal.signal(signal.SIGINT, self._old[signal.SIGINT])

    def requested(self, step: int) -> bool:
        """Whether to save and stop after `step`; the hosts of a run agree on it."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._seen
