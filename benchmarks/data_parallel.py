"""Measures the overhead of jit data parallelism on one machine: four devices against one, of the same batch.

  python benchmarks/data_parallel.py [--config FILE.py] [--rounds 5] [--steps 5] [--config.batch=32 ...]

The four are virtual CPU devices, which share the cores that the one device has alone. The two sides
alternate; prints the medians over rounds and their ratio.
"""

import argparse
import pathlib
import time

import jax
import numpy as np

from vidjax.config import load
from vidjax.environment import environment
from vidjax.train.experiment import build, initial_state

DEFAULT = pathlib.Path(__file__).parents[1] / "configs" / "synthetic_motion" / "slow_fusion_conv4.py"


class Side:
    """A compiled step on some devices, with its state and one batch."""

    def __init__(self, config, devices):
        self.exp = build(config, devices=devices)
        batches = self.exp.batches(config.seed, config.batch)
        batch = {k: v for k, v in next(batches).items() if k in ("inputs", "targets")}
        batches.close()
        self.batch = jax.device_put(batch, self.exp.runner.batch_sharding)
        self.state = self.exp.runner.place(initial_state(self.exp))
        self.run(2)

    def run(self, steps: int) -> float:
        """Returns the seconds per step."""
        start = time.perf_counter()
        for _ in range(steps):
            self.state, metrics = self.exp.runner.step(self.state, self.batch)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(DEFAULT))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    args, overrides = parser.parse_known_args()
    jax.config.update("jax_num_cpu_devices", 4)
    config = load(args.config, [o.removeprefix("--config.") for o in overrides])
    sides = {n: Side(config, jax.devices()[:n]) for n in (1, 4)}
    times = {n: [] for n in sides}
    for _ in range(args.rounds):
        for n, side in sides.items():
            times[n].append(side.run(args.steps))
    for key, value in environment().items():
        print(f"{key:14} {value}")
    print(f"{config.model.name}, batch {config.batch}")
    for n, seconds in times.items():
        rounds = ", ".join(f"{1e3 * s:.1f}" for s in seconds)
        print(f"{n} device{'s' * (n > 1):13} {1e3 * np.median(seconds):.1f} ms  (rounds: {rounds})")
    print(f"ratio          {np.median(times[4]) / np.median(times[1]):.3f}")


if __name__ == "__main__":
    main()
