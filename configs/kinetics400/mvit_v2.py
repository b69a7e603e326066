"""MViTv2 from scratch on Kinetics-400, arXiv:2112.01526, section 6 and appendix.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/mvit_v2.py:model=mvit_v2_b_32x3 --workdir runs/m

The recipe is that of mvit_v1.py: AdamW, 512 clips = 128 devices x 2 videos x 2 clips per video, learning rate
1e-4 for 16 videos, 200 epochs with a half-cosine schedule and 30 warmup epochs, weight decay 0.05, mixup,
cutmix, RandAugment, random erasing; about 240,000 training videos. Drop path 0.2 (S), 0.3 (B), 0.75 (L).
mvit_v2_l_40x3, of crops of 312 pixels, was pretrained on ImageNet-21K; a recipe for it is not published, this
is that of the others, and its tables of positions for `init.path` would have to be of the same size.
Views: 5 clips x 1 crop (L: x 3), scores averaged.
Hardware: 128 GPUs; hours are not published, nor measured here.
Expected, top-1 / top-5: S 81.0 / 94.6, B 82.9 / 95.7, L 86.1 / 97.0 (PySlowFast's model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/mvit_v2.py:model=mvit_v2_b_32x3 --topology v5e:16x16 --quick \
      --config.model.dtype=bfloat16
  vidjax plan configs/kinetics400/mvit_v2.py:model=mvit_v2_b_32x3 --topology v6e:8x8 --quick \
      --config.model.dtype=bfloat16
"""

from ml_collections import ConfigDict

from configs.kinetics400.mvit_v1 import recipe
from vidjax.config import parse_arg

DROP_PATH = {"mvit_v2_s_16x4": 0.2, "mvit_v2_b_32x3": 0.3, "mvit_v2_l_40x3": 0.75}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", and "model=NAME", one of mvit_v2_*."""
    args = parse_arg(arg, model="mvit_v2_s_16x4")
    return recipe(args, DROP_PATH[args.model])
