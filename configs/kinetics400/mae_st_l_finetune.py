"""MAE-ST ViT-L: fine-tuning on Kinetics-400, arXiv:2205.09113, appendix A.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/mae_st_l_finetune.py \\
      --workdir runs/mae_st_l_k400 --config.init.path=runs/mae_st_l

The authors' script (mae_st, FINETUNE.md) and config (PySlowFast, k400_VIT_L_16x4_FT), which agree: AdamW,
learning rate 2.4e-3 x clips / 256 = 4.8e-3, weight decay 0.05, layer decay 0.75, gradient clipped at 5, drop
path 0.2, dropout 0.3 before the classifier, 50 epochs, 5 of warmup, cosine, mixup 0.8, cutmix 1.0, label
smoothing 0.1, RandAugment (2 operations of magnitude 7), random erasing 0.25, the classifier's initial
weights times 0.001. `init.path` is a run of mae_st_l_pretrain.py; its decoder is dropped.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 512 clips = 128 devices x 2 videos x 2 clips of each (repeated augmentation) x 1 accumulation
step. The number of devices is not verified.
Views: 7 clips x 3 crops of 224 at a shorter side of 224, scores averaged.
Hardware: hours are not measured here.
Expected: 84.8 (PySlowFast's MAE project), 84.35 (the authors' script).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/mae_st_l_finetune.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_finetune.get_config(arg)
    config.batch = 512
    config.data.auto_augment = "rand-m7-mstd0.5-inc1"
    config.epochs = 50.0
    config.model.name = "mae_st_l"
    config.model.options = dict(drop_path=0.2, dropout=0.3, head_scale=0.001)
    config.init.skip = ("params/(decoder|mask_token|head)",)
    config.optimizer.update(lr=2.4e-3, lr_batch=256, clip_norm=5.0)
    config.schedule.update(warmup_lr=0.0, end_lr=0.033)
    config.evals.val.clips = 7
    config.expected = dict(top1=84.8, source="PySlowFast's MAE project")
    return config
