"""ViViT-L/16x2 with a factorized encoder on Something-Something v2, arXiv:2103.15691, section 4.1, table 6.

  VIDJAX_DATA=/data vidjax train --config configs/ssv2/vivit_fe.py --workdir runs/vivit_ssv2 \
      --config.init.path=runs/vivit_l_fe

The recipe is that of configs/kinetics400/vivit.py with the numbers of the authors' config: 35 epochs,
learning rate 0.4, mixup 0.3, label smoothing 0.3, drop path 0.3, RandAugment (2 operations of magnitude 20 of
30, here 6.7 of 10), no change of colors, no flipping. `init.path` expects weights of Kinetics.

Data: a folder ssv2 under VIDJAX_DATA with the published lists and videos (docs/datasets.md): 168,913 training
and 24,777 validation videos.
Effective batch: 64 clips = 32 devices x 2 clips x 1 accumulation step x 1 clip per video. The learning rate
does not follow the batch.
Clips: 32 frames, every one, shorter side 288 scaled by 0.9 to 1.33, crop 256.
Views: 4 clips x 3 crops, scores averaged.
Hardware and hours: TPUs; not published, nor measured here.
Expected: 65.9 / 89.9 (table 6).
"""

from ml_collections import ConfigDict

from configs.kinetics400 import vivit
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    args = parse_arg(arg)
    config = vivit.get_config("model=vivit_l_16x2_fe" + (",smoke" if args.smoke else ""))
    config.epochs = 35.0
    config.data.options = dict(path="ssv2")
    config.data.update(
        name="ssv2",
        stride=1.0,
        size=256,
        short_side=288,
        short_side_range=(259, 383),
        flip=False,
        color_jitter=0.0,
        grayscale=0.0,
        auto_augment="rand-m6.7-n2",
    )
    config.model.options = dict(drop_path=0.3, **({} if args.smoke else dict(size=256)))
    config.task = dict(name="classification", mixup=0.3, label_smoothing=0.3)
    config.optimizer.lr = 0.4
    config.expected = dict(top1=65.9, source="arXiv:2103.15691, table 6")
    return config
