"""VideoMAE ViT-B: masked pretraining on UCF101 alone, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/videomae_b_pretrain.py --workdir runs/mae_ucf

The authors' script: as configs/kinetics400/videomae_b_pretrain.py but masks of 75 %, learning rate 3e-4, 3200
epochs and an effective batch of 192 clips = 8 devices x 24 clips x 1 accumulation step x 1 clip per video.
Data: a folder ucf101 under VIDJAX_DATA with the published lists (docs/datasets.md); 9,537 training videos
(split 1). Expected after fine-tuning: 91.3 / 98.5 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/ucf101/videomae_b_pretrain.py --topology v5e:8x8 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_pretrain


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_pretrain.get_config(arg)
    config.batch = 192
    config.epochs = 3200.0
    config.data.options = dict(path="ucf101")
    config.data.update(name="ucf101", target_fps=None, eval_split="test")
    config.model.options.mask_ratio = 0.75
    config.optimizer.lr = 3e-4
    config.expected = dict(top1=91.3, source="the authors' model zoo, after fine-tuning")
    return config
