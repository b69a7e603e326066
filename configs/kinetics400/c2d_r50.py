"""C2D-R50 8x8 from scratch on Kinetics-400.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/c2d_r50.py --workdir runs/c2d_r50

The recipe is that of slow_r50.py: SGD, 64 clips = 8 devices x 8, learning rate 0.1 for 64 clips, 196 epochs
with a half-cosine schedule and 34 warmup epochs, weight decay 1e-4, dropout 0.5; 10 clips x 3 crops of 256
pixels. About 240,000 training videos.
Hardware and hours: not measured.
Expected: 71.46 / 89.68 (pytorchvideo's model zoo).
"""

from ml_collections import ConfigDict

from configs.kinetics400.slow_r50 import recipe
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    return recipe(parse_arg(arg), "c2d_r50_8x8", frames=8, stride=8, top1=71.46)
