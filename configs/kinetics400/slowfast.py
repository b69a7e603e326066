"""SlowFast from scratch on Kinetics-400, arXiv:1812.03982, table 2.

  vidjax train --config configs/kinetics400/slowfast.py:model=slowfast_r50_8x8 --workdir runs/slowfast

The recipe is that of slow_r50.py: SGD, 64 clips = 8 devices x 8, learning rate 0.1 for 64 clips, 196 epochs
with a half-cosine schedule and 34 warmup epochs, weight decay 1e-4, dropout 0.5; 10 clips x 3 crops of 256
pixels, about 240,000 training videos. Clips are of the fast pathway: every second frame of 30 a second, 32 of
them, or 64 for 16x8. More videos at once: "batch=N", a multiple of 8; learning rate and groups of BatchNorm
follow.
Hardware: 8 GPUs for 64 clips (the paper trains on 128, with 8 clips each); hours not measured.
Expected, top-1 / top-5: 4x16 75.6 / 92.1, 8x8 77.0 / 92.6, R101 8x8 77.9 / 93.2, R101 16x8 78.9 / 93.5, with
non-local blocks 79.8 / 93.9 (the paper); 75.34, 76.94, 77.90 and 78.70 in pytorchvideo's model zoo.

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/slowfast.py:model=slowfast_r101_8x8,batch=1024 \
      --topology v5e:16x16 --quick --config.model.dtype=bfloat16
  vidjax plan configs/kinetics400/slowfast.py:model=slowfast_r101_8x8,batch=1024 \
      --topology v6e:8x8 --quick --config.model.dtype=bfloat16
"""

from ml_collections import ConfigDict

from configs.kinetics400.slow_r50 import recipe
from vidjax import spec
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", "model=NAME", one of slowfast_*, and "batch=N"."""
    args = parse_arg(arg, model="slowfast_r50_4x16", batch=64)
    published = spec(args.model)
    frames, top1 = published.input_shape[0], published.results[0].top1
    config = recipe(args, args.model, frames, 2, top1, "arXiv:1812.03982, table 2")
    config.batch = args.batch
    config.model.options.bn_groups = max(1, args.batch // 8)
    return config
