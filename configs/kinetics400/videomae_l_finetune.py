"""VideoMAE ViT-L: fine-tuning on Kinetics-400, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_l_finetune.py \\
      --workdir runs/mae_l_k400 --config.init.path=runs/mae_l

As videomae_b_finetune.py but 35 epochs, learning rate 2e-3 and, as in the authors' script, an effective batch
of 256 clips = 64 devices x 2 videos x 2 clips of each. Expected: 85.2 / 96.8 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_l_finetune.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_finetune.get_config(arg)
    config.batch = 256
    config.epochs = 35.0
    config.model.name = "videomae_l"
    config.optimizer.lr = 2e-3
    config.expected = dict(top1=85.2, source="the authors' model zoo")
    return config
