"""Measures the overhead of the training loop over the jitted step: data, metrics, logging, finiteness checks.

  python benchmarks/step_loop.py [--config FILE.py] [--steps 60] [--rounds 3] [--still]

Each round runs `--steps` steps of `vidjax.train.loop` on real batches, then as many calls of the same
compiled step on a fixed batch on the device. Prints the medians over rounds, their ratio, and the fraction of
the loop's time spent waiting for data. On the CPU, decoding competes with the model for cores; `--still`
feeds the loop a fixed batch from memory to measure the overhead of the loop alone.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import numpy as np

from vidjax.config import load
from vidjax.data.pipeline import prefetch_to_device
from vidjax.environment import environment
from vidjax.train.experiment import Experiment, build, initial_state
from vidjax.train.loop import train
from vidjax.train.metrics import read_metrics

DEFAULT = pathlib.Path(__file__).parents[1] / "configs" / "synthetic_motion" / "slow_fusion_conv4.py"
make_batches = Experiment.batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(DEFAULT))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--still", action="store_true")
    args = parser.parse_args()
    if args.still:
        Experiment.batches = lambda *args, **kwargs: StillBatches(*args, **kwargs)  # a class would not bind
    warm = 10  # warmup steps for compilation and prefetching
    total = args.steps + warm
    quiet = ["epochs=0.0", f"steps={total}", "schedule.warmup_epochs=0", "report=False"]
    # No evaluation or checkpoint falls between the measured steps.
    quiet += [f"log_every={warm}", "checkpoint.every_epochs=0"]
    config = load(args.config, quiet)
    for section in config.evals.values():
        section.every = 0.0
    loop, wait, bare = [], [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as workdir:
            train(config, workdir)
            rows = [r for r in read_metrics(pathlib.Path(workdir)) if r["split"] == "train"][1:]
            loop.append(np.mean([r["step_time"] for r in rows]))
            wait.append(np.mean([r["data_wait"] for r in rows]))
        bare.append(bare_step(config, args.steps, warm))
    for key, value in environment().items():
        print(f"{key:14} {value}")
    print(f"bare step      {np.median(bare) * 1e3:.1f} ms  (rounds: {_ms(bare)})")
    print(f"in the loop    {np.median(loop) * 1e3:.1f} ms  (rounds: {_ms(loop)})")
    print(f"ratio          {np.median(loop) / np.median(bare):.3f}")
    print(f"data wait      {np.median(wait):.1%} of the loop")


class StillBatches:
    """A replacement for `Experiment.batches` that repeats its first batch."""

    cpu_seconds, note = 0.0, None

    def __init__(self, *args, **kwargs):
        batches = make_batches(*args, **kwargs)
        self._batch = next(batches)
        batches.close()

    def __iter__(self):
        return self

    def __next__(self):
        return self._batch

    def advice(self) -> None:
        return None

    def get_state(self) -> dict:
        return {"bad": []}

    def close(self) -> None:
        pass


def bare_step(config, steps: int, warm: int) -> float:
    """Returns the seconds per step on a fixed batch."""
    exp = build(config)
    batches = make_batches(exp, config.seed, config.batch)
    batch = next(prefetch_to_device(batches, exp.runner.batch_sharding, 1))
    batches.close()
    batch = {k: batch[k] for k in ("inputs", "targets")}
    state = exp.runner.place(initial_state(exp))
    for i in range(warm + steps):
        if i == warm:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = exp.runner.step(state, batch)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / steps


def _ms(seconds: list[float]) -> str:
    return ", ".join(f"{s * 1e3:.1f}" for s in seconds)


if __name__ == "__main__":
    main()
