"""Logging of metrics to JSON lines and TensorBoard, and progress on the terminal."""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import rich.console
import rich.progress
import tensorboardX
from etils import epath

from vidjax import files
from vidjax.errors import UserError

REMOTE_PAUSE = 30.0  # minimum seconds between writes of metrics.jsonl to an object store


class MetricsWriter:
    """Appends rows to `metrics.jsonl` and TensorBoard files in a workdir. Only host 0 writes.

    Rows after `step`, written by a run that was killed after its last checkpoint, are removed first.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        step: int,
        active: bool = True,
        config: Mapping[str, Any] | None = None,
    ):
        """`config`: of the run; with `wandb.project`, rows are also logged to Weights & Biases.

        Raises:
          UserError: wandb is not installed, or refuses.
        """
        self.active = active
        self._wandb: Any = None
        if not active:
            return
        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._lines = [json.dumps(row) + "\n" for row in read_metrics(workdir) if row["step"] <= step]
        files.write(self._path, "".join(self._lines))
        self._remote = files.is_remote(workdir)
        self._written = time.monotonic()
        self._file: Any = None if self._remote else self._path.open("a", encoding="utf-8")
        if config and config["wandb"]["project"]:
            self._wandb = _start_wandb(workdir, config)
        self._board = tensorboardX.SummaryWriter(str(epath.Path(workdir) / "tensorboard"), purge_step=step)

    def write(self, step: int, split: str, values: Mapping[str, float], epoch: float) -> None:
        """Writes one row. Non-finite values become null in JSON."""
        if not self.active:
            return
        plain = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        line = json.dumps({"step": step, "epoch": round(epoch, 4), "split": split, **plain}) + "\n"
        if self._remote:  # objects cannot be appended to, so rewrite the whole file periodically
            self._lines.append(line)
            if time.monotonic() - self._written > REMOTE_PAUSE or split != "train":
                self._write_remote()
        else:
            self._file.write(line)
            self._file.flush()
        if self._wandb:
            self._wandb.log({f"{split}/{k}": v for k, v in values.items()}, step=step)
        for key, value in values.items():
            self._board.add_scalar(f"{split}/{key}", value, step)

    def flush(self) -> None:
        """Writes all rows to an object store. Call it before a checkpoint, from which a run resumes."""
        if self.active and self._remote:
            self._write_remote()

    def close(self) -> None:
        if self.active:
            if self._remote:
                self._write_remote()
            else:
                self._file.close()
            self._board.close()
            if self._wandb:
                self._wandb.finish()

    def _write_remote(self) -> None:
        files.write(self._path, "".join(self._lines))
        self._written = time.monotonic()


def _start_wandb(workdir: epath.PathLike, config: Mapping[str, Any]) -> Any:
    """Starts or resumes the run of a workdir on Weights & Biases."""
    try:
        import wandb
    except ImportError:
        raise UserError("wandb.project is set: pip install wandb, or remove it") from None
    path = files.absolute(workdir)
    try:
        return wandb.init(
            project=config["wandb"]["project"],
            mode=config["wandb"]["mode"],
            name=path.name,
            id=hashlib.sha256(str(path).encode()).hexdigest()[:16],
            resume="allow",
            dir=None if files.is_remote(path) else str(path),
            config=dict(config),
        )
    except wandb.errors.Error as e:
        raise UserError(f"Weights & Biases: {str(e).partition(chr(10))[0]}; or set wandb.mode=offline") from e


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of `metrics.jsonl`, without lines that a kill left truncated."""
    rows = files.read_rows(epath.Path(workdir) / "metrics.jsonl")
    return [row for row in rows if isinstance(row.get("step"), int)]


class Stopwatch:
    """Measures throughput and the time spent on data loading since the last `read`.

    Args:
      cpu_seconds: returns the total CPU time spent on data loading so far.
    """

    def __init__(self, cpu_seconds: Callable[[], float]):
        self._cpu_seconds = cpu_seconds
        self.last = 0.0  # seconds of the last `wait`
        self._restart()

    def _restart(self) -> None:
        self._cpu_start = self._cpu_seconds()
        self.waited = 0.0
        self.steps = 0
        self._start = time.perf_counter()

    def wait(self, iterator) -> Any:
        """Returns `next(iterator)` and counts its duration as waiting for data."""
        start = time.perf_counter()
        item = next(iterator)
        self.last = time.perf_counter() - start
        self.waited += self.last
        self.steps += 1
        return item

    def read(self, batch: int) -> dict[str, float]:
        """Returns the measurements and restarts the stopwatch.

        Args:
          batch: clips per step.

        Returns:
          A dict of `clips_per_s`; `step_time` in seconds; `data_wait`, the fraction of the time spent waiting
          for data (an upper bound, because the device may be busy meanwhile); and `decode_cpu`, the CPU time
          of data loading as a fraction of all available processors. If the model also runs on the CPU, steps
          are slower by about that fraction.
        """
        elapsed = time.perf_counter() - self._start
        steps = max(self.steps, 1)
        values = {
            "clips_per_s": self.steps * batch / elapsed,
            "step_time": elapsed / steps,
            "data_wait": self.waited / elapsed,
            "decode_cpu": min(1.0, (self._cpu_seconds() - self._cpu_start) / (elapsed * processors())),
        }
        self._restart()
        return values

    def pause(self) -> "_Pause":
        """Returns a context manager that excludes its duration, such as evaluation or saving."""
        return _Pause(self)


def processors() -> int:
    """Returns the number of processors available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pause:
    def __init__(self, watch: Stopwatch):
        self.watch = watch

    def __enter__(self) -> "_Pause":
        self.start = time.perf_counter()
        return self

    @property
    def seconds(self) -> float:
        """Time since the start of the pause."""
        return time.perf_counter() - self.start

    def __exit__(self, *_) -> None:
        self.watch._start += self.seconds


class Progress:
    """Shows a progress bar on a terminal, and prints a line per report otherwise. Only active on host 0."""

    def __init__(self, name: str, total: int, step: int, active: bool = True):
        self.active, self.total = active, total
        console = rich.console.Console(stderr=True)
        self._lines = not console.is_terminal
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[text]}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            disable=self._lines or not active,
        )
        self._task = self._bar.add_task(name, total=total, completed=step, text="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the loss, accuracy, clips/s, step time, and the fractions of time and CPU spent on data."""
        accuracy = f"top-1 {values['top1']:.3f}  " if "top1" in values else ""
        text = (
            f"loss {values['loss']:.3f}  {accuracy}{values['clips_per_s']:.1f} clips/s  "
            f"{values['step_time'] * 1e3:.0f} ms/step  data {values['data_wait']:.0%} "
            f"({values['decode_cpu']:.0%} CPU)"
        )
        text += "".join(f"  {k.upper()} {values[k]:.0%}" for k in ("mfu", "hbm") if k in values)
        self._bar.update(self._task, text=text)
        if self._lines:
            self.print(f"step {step}/{self.total}  {text}")

    def print(self, line: str) -> None:
        """Prints a line above the progress bar."""
        if not self.active:
            return
        if self._lines:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, highlight=False)
