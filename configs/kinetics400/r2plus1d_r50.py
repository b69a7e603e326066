"""R(2+1)D-R50 16x4 from scratch on Kinetics-400.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/r2plus1d_r50.py --workdir runs/r2plus1d_r50

The recipe is that of slow_r50.py: SGD, 64 clips = 8 devices x 8, learning rate 0.1 for 64 clips, 196 epochs
with a half-cosine schedule and 34 warmup epochs, weight decay 1e-4, dropout 0.5; 10 clips x 3 crops of 256
pixels. About 240,000 training videos.
Hardware and hours: not measured.
Expected: 76.01 / 92.23 (pytorchvideo's model zoo).
"""

from ml_collections import ConfigDict

from configs.kinetics400.slow_r50 import recipe
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    return recipe(parse_arg(arg), "r2plus1d_r50_16x4", frames=16, stride=4, top1=76.01)
