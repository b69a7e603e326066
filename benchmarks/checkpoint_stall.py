"""Measures how long training waits for its checkpoints, as they are written and if each were waited for.

  python benchmarks/checkpoint_stall.py [--config FILE.py] [--rounds 3] [--config.KEY=VALUE ...]

By default, the pretraining of the demo, with its checkpoints. The two sides alternate; prints the medians of
the seconds and shares of timing.json, which include the wait for the last checkpoint.
"""

import argparse
import json
import pathlib
import tempfile
from unittest import mock

import numpy as np

from vidjax.config import load
from vidjax.train.checkpoint import Checkpointer
from vidjax.train.loop import train

DEFAULT = pathlib.Path(__file__).parents[1] / "configs" / "synthetic_motion" / "videomae_pretrain.py"
save = Checkpointer.save


def waiting(self, *args, **kwargs):
    save(self, *args, **kwargs)
    self.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=str(DEFAULT))
    parser.add_argument("--rounds", type=int, default=3)
    args, overrides = parser.parse_known_args()
    config = load(args.config, ["report=False", *(o.removeprefix("--config.") for o in overrides)])
    sides = {"asynchronous": save, "waited for": waiting}
    seconds, shares = ({name: [] for name in sides} for _ in range(2))
    for _ in range(args.rounds):
        for name, method in sides.items():
            with tempfile.TemporaryDirectory() as workdir, mock.patch.object(Checkpointer, "save", method):
                train(config, workdir)
                spent = json.loads((pathlib.Path(workdir) / "timing.json").read_text())
            seconds[name].append(spent["saving"])
            shares[name].append(spent["saving"] / sum(spent.values()))
    for name in sides:
        print(f"{name:13} {np.median(seconds[name]):.2f} s, {np.median(shares[name]):.1%} of the run")


if __name__ == "__main__":
    main()
