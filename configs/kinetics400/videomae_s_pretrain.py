"""VideoMAE ViT-S: masked pretraining on Kinetics-400, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_s_pretrain.py --workdir runs/mae_s

As videomae_b_pretrain.py, with an effective batch of 1024 clips = 32 devices x 32 clips x 1 accumulation
step x 1 clip per video, as in the authors' script. Expected after fine-tuning: 79.0 / 93.8 (their model
zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_s_pretrain.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_pretrain


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_pretrain.get_config(arg)
    config.batch = 1024
    config.model.name = "videomae_s_pretrain"
    config.expected = dict(top1=79.0, source="the authors' model zoo, after fine-tuning")
    return config
