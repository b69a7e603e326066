"""Measures the time from the start of `vidjax train` to the end of its first step, without and with a cache.

  python benchmarks/first_step.py [--config FILE.py] [--rounds 3] [--config.KEY=VALUE ...]

Each round has an empty compilation cache first (JAX_COMPILATION_CACHE_DIR), then the one that it left. By
default, the model is ViT-B of VideoMAE with one clip of 2 x 64 x 64, whose step takes little time.
Prints both medians and their ratio.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
DEFAULT = f"{ROOT / 'configs' / 'synthetic_motion' / 'any_model.py'}:model=videomae_b"
VIT_B = ["model.tiny=False", "data.frames=2", "data.stride=1.0", "data.size=64", "data.short_side=64"]
SHORT = ["batch=1", "epochs=0.0", "steps=1", "schedule.warmup_epochs=0.0", "report=False"]
SHORT += ["evals.val.every=0.0", "data.options.train=4", "data.options.test=1", "data.cache=False"]


def first_step(config: str, overrides: list[str], cache: str) -> float:
    """Returns the seconds to the first step of a new process."""
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "vidjax", "train", f"--config={config}", f"--workdir={workdir}"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, *overrides], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for line in process.stderr:
            if line.startswith("step 1/"):
                seconds = time.perf_counter() - start
                break
        else:
            sys.exit(f"error: {' '.join(command)} made no step")
        process.kill()
        process.wait()
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="")
    parser.add_argument("--rounds", type=int, default=3)
    args, overrides = parser.parse_known_args()
    if not args.config:
        overrides = [f"--config.{text}" for text in VIT_B] + overrides
    overrides = [f"--config.{text}" for text in [*SHORT, "log_every=1"]] + overrides
    cold, warm = [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(first_step(args.config or DEFAULT, overrides, cache))
            warm.append(first_step(args.config or DEFAULT, overrides, cache))
        print(f"cold {cold[-1]:.1f} s, warm {warm[-1]:.1f} s", flush=True)
    print(f"median: cold {np.median(cold):.1f} s, warm {np.median(warm):.1f} s")
    print(f"ratio {np.median(warm) / np.median(cold):.2f}")


if __name__ == "__main__":
    main()
