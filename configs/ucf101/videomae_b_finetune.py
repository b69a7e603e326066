"""VideoMAE ViT-B: fine-tuning on UCF101, arXiv:2203.12602.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/videomae_b_finetune.py \\
      --workdir runs/mae_b_ucf --config.init.path=runs/mae_ucf

As configs/kinetics400/videomae_b_finetune.py but 100 epochs, layer decay 0.7, drop path 0.2, dropout 0.5
before the classifier and, as in the authors' script, an effective batch of 256 clips = 8 devices x 16
videos x 2 clips of each. Data: a folder ucf101 under VIDJAX_DATA with the published lists
(docs/datasets.md); 9,537 training videos (split 1). Expected: 91.3 / 98.5 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/ucf101/videomae_b_finetune.py --topology v5e:8x8 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_finetune.get_config(arg)
    config.batch = 256
    config.epochs = 100.0
    config.data.options = dict(path="ucf101")
    config.data.update(name="ucf101", target_fps=None, eval_split="test")
    config.model.options.update(drop_path=0.2, dropout=0.5)
    config.optimizer.layer_decay = 0.7
    config.schedule.end_lr = 0.02
    config.expected = dict(top1=91.3, source="the authors' model zoo")
    return config
