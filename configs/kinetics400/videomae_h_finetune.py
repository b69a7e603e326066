"""VideoMAE ViT-H: fine-tuning on Kinetics-400, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_h_finetune.py \\
      --workdir runs/mae_h_k400 --config.init.path=runs/mae_h

As videomae_b_finetune.py but 50 epochs, learning rate 1e-3, drop path 0.2, dropout 0.5 before the classifier
and, as in the authors' script, an effective batch of 1024 clips = 64 devices x 8 videos x 2 clips of each.
Expected: 86.6 / 97.1 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_h_finetune.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_finetune.get_config(arg)
    config.batch = 1024
    config.epochs = 50.0
    config.model.name = "videomae_h"
    config.model.options.update(drop_path=0.2, dropout=0.5, remat="full")
    config.optimizer.lr = 1e-3
    config.schedule.end_lr = 0.01
    config.expected = dict(top1=86.6, source="the authors' model zoo")
    return config
