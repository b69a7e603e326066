"""VideoMAE ViT-H: masked pretraining on Kinetics-400, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_h_pretrain.py --workdir runs/mae_h

As videomae_b_pretrain.py, with the effective batch of 1024 clips = 64 devices x 16 clips x 1 accumulation
step x 1 clip per video of the authors' script, whose blocks are recomputed in the backward pass. Expected
after fine-tuning: 86.6 / 97.1 (their model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_h_pretrain.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
  vidjax plan configs/kinetics400/videomae_h_pretrain.py --topology v6e:8x8 --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_pretrain


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_pretrain.get_config(arg)
    config.batch = 1024
    config.model.name = "videomae_h_pretrain"
    config.model.options.remat = "full"
    config.expected = dict(top1=86.6, source="the authors' model zoo, after fine-tuning")
    return config
