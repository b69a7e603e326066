"""VideoMAE ViT-S: fine-tuning on Kinetics-400, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_s_finetune.py \\
      --workdir runs/mae_s_k400 --config.init.path=runs/mae_s

As videomae_b_finetune.py but 150 epochs and, as in the authors' script, an effective batch of 768 clips =
32 devices x 12 videos x 2 clips of each. Expected: 79.0 / 93.8 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_s_finetune.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_finetune.get_config(arg)
    config.epochs = 150.0
    config.model.name = "videomae_s"
    config.expected = dict(top1=79.0, source="the authors' model zoo")
    return config
