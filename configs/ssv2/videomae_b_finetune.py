"""VideoMAE ViT-B: fine-tuning on Something-Something v2, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/ssv2/videomae_b_finetune.py \\
      --workdir runs/mae_b_ssv2 --config.init.path=runs/mae_ssv2

As configs/kinetics400/videomae_b_finetune.py but 30 epochs, frames from equal segments, no flipping, 2 clips
x 3 crops. Data: a folder ssv2 under VIDJAX_DATA: 168,913 training and 24,777 validation videos.
Effective batch: 768 clips = 64 devices x 6 videos x 2 clips of each. Expected: 70.8 / 92.4 (the authors'
model zoo).

Planned (docs/slices.md):

  vidjax plan configs/ssv2/videomae_b_finetune.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_finetune.get_config(arg)
    config.epochs = 30.0
    config.data.options = dict(path="ssv2")
    config.data.update(name="ssv2", sampling="segments", target_fps=None, flip=False)
    config.evals.val.clips = 2
    config.expected = dict(top1=70.8, source="the authors' model zoo")
    return config
