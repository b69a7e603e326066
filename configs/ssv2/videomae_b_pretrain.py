"""VideoMAE ViT-B: masked pretraining on Something-Something v2, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/ssv2/videomae_b_pretrain.py --workdir runs/mae_ssv2

As configs/kinetics400/videomae_b_pretrain.py but 2400 epochs, every second frame, and no flipping, which
would change labels of left and right. Data: a folder ssv2 under VIDJAX_DATA; 168,913 training videos are
assumed. Expected after fine-tuning: 70.8 / 92.4 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/ssv2/videomae_b_pretrain.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_pretrain


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_pretrain.get_config(arg)
    config.epochs = 2400.0
    config.data.options = dict(path="ssv2")
    config.data.update(name="ssv2", stride=2.0, target_fps=None, flip=False)
    config.expected = dict(top1=70.8, source="the authors' model zoo, after fine-tuning")
    return config
