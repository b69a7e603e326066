"""What a run does with its time and its devices: traces, utilization, memory, and slow hosts."""

import functools
import re
import time
from collections import Counter
from typing import Any

import jax
import numpy as np
from etils import epath

from vidjax.analysis.chips import chip_of
from vidjax.analysis.macs import jaxpr_cost
from vidjax.errors import UserError
from vidjax.layers.lowering import lowering_platform
from vidjax.train.experiment import Experiment


def step_flops(exp: Experiment, batch: Any) -> float:
    """Counts the operations of one training step: 2 per multiply-add, forward and twice that backward.

    What a remat policy computes again is not counted, nor are frozen layers left out.

    Args:
      exp: the experiment.
      batch: inputs and targets, as arrays or shapes.
    """
    state = jax.eval_shape(exp.init)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    with lowering_platform("reference"):
        traced = jax.make_jaxpr(
            lambda params, model_state, batch, rng: exp.task.loss(
                exp.model, params, model_state, batch, rng, True
            )[0]
        )(state.params, state.model_state, batch, rng)
    return 3 * 2 * jaxpr_cost(traced).macs


class Utilization:
    """Measures how much of the devices' peak rate and memory a run uses, where that is published."""

    def __init__(self, exp: Experiment):
        self._exp = exp
        self._device = jax.local_devices()[0]
        self._chip = chip_of(self._device)
        self._batch: Any = None

    def see(self, batch: Any) -> None:
        """Notes the shapes of the training batches."""
        if self._batch is None:
            self._batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)

    @functools.cached_property
    def _flops(self) -> float:
        return step_flops(self._exp, self._batch)

    def read(self, step_time: float) -> dict[str, float]:
        """Returns `mfu`, model FLOPs utilization (Chowdhery et al., arXiv:2204.02311, appendix B), and `hbm`,
        the largest fraction of the device's memory in use so far; neither where it is not known.

        Args:
          step_time: seconds per step.
        """
        values = {}
        if self._chip and self._batch is not None:
            values["mfu"] = self._flops / (step_time * self._chip.flops * jax.device_count())
        memory = self._device.memory_stats() or {}
        if memory.get("bytes_limit"):
            values["hbm"] = memory["peak_bytes_in_use"] / memory["bytes_limit"]
        return values


class Trace:
    """Writes a profiler trace of some steps to a folder, for XProf or TensorBoard."""

    def __init__(self, steps: tuple[int, int] | None, folder: epath.Path):
        """`steps`: the first and the last one, counted from 1."""
        self._first, self._last = steps or (0, 0)
        self._folder, self._running = folder, False

    def before(self, step: int) -> None:
        """Starts the trace. Call this before each step."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, outputs: Any) -> str | None:
        """Ends the trace once the `outputs` of its last step are computed. Returns where it is."""
        if not self._running or step < self._last:
            return None
        jax.block_until_ready(outputs)
        self.close()
        return f"trace of steps {self._first} to {step}: xprof --logdir {self._folder}"

    def close(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """Parses "10:20", the first and the last step of a trace. Raises `UserError` if it is something else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile must be FIRST:LAST, two steps counted from 1, such as 10:20, not {text}")
    return int(match[1]), int(match[2])


def straggler(waits: dict[str, float]) -> str | None:
    """Returns the host that the others wait for; None if no host waits much longer for its data.

    Args:
      waits: the fraction of its time that each host waits for its data.
    """
    slowest = max(waits, key=lambda host: waits[host])
    others = [wait for host, wait in waits.items() if host != slowest]
    if not others or waits[slowest] < max(0.1, 2 * float(np.median(others))):
        return None
    return slowest


class Breakdown:
    """Adds up what the time of a run is spent on, in seconds."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent: Counter[str] = Counter()

    def add(self, kind: str, seconds: float) -> None:
        self._spent[kind] += seconds

    def read(self) -> dict[str, float]:
        """Returns the seconds of each kind; "steps" is the time that no other kind has."""
        spent = {kind: round(seconds, 3) for kind, seconds in self._spent.items()}
        total = time.perf_counter() - self._start
        return {"steps": round(max(0.0, total - sum(spent.values())), 3), **spent}

    def text(self) -> str:
        """Describes the shares in one line."""
        spent = self.read()
        total = sum(spent.values()) or 1.0
        return f"{total:.0f} s: " + ", ".join(f"{kind} {s / total:.0%}" for kind, s in spent.items())
