"""VideoMAE ViT-L: masked pretraining on Kinetics-400, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_l_pretrain.py --workdir runs/mae_l

As videomae_b_pretrain.py, with the decoder of 12 blocks and the effective batch of 512 clips = 64 devices x
8 clips x 1 accumulation step x 1 clip per video of the authors' script. Expected after fine-tuning: 85.2 /
96.8 (their model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_l_pretrain.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
  vidjax plan configs/kinetics400/videomae_l_pretrain.py --topology v6e:8x8 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_pretrain


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_pretrain.get_config(arg)
    config.batch = 512
    config.model.name = "videomae_l_pretrain"
    config.model.options.decoder_depth = 12
    config.expected = dict(top1=85.2, source="the authors' model zoo, after fine-tuning")
    return config
