"""VideoMAE V2 ViT-g: dual masking, arXiv:2303.16727, here on Kinetics-400.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_v2_g_pretrain.py --workdir runs/mae_g

The authors' script, which has 1.35M unlabeled clips in its place: AdamW (0.9, 0.95), learning rate 6e-4 x
videos / 256, clipping at 0.02, 30 epochs of warmup, 300 epochs with 4 clips of each loaded video ("1200
epochs" in the paper), tube masks of 90 % and a running-cell decoder mask of 50 %. Effective batch: 8192 clips
= 64 devices x 32 videos x 4 clips of each x 1 accumulation step. Expected after labeled K710 and fine-tuning:
88.4 / 98.0 at 224 (their model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_v2_g_pretrain.py --topology v5e:16x16 \
      --config.parallel.mesh.fsdp=16 --config.model.options.scan=True
  vidjax plan configs/kinetics400/videomae_v2_g_pretrain.py --topology v6e:8x8 --quick \
      --config.parallel.mesh.fsdp=16 --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_pretrain


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_pretrain.get_config(arg)
    config.batch = 8192
    config.epochs = 300.0
    config.data.repeats = 4
    config.model.name = "videomae_v2_g_pretrain"
    config.model.options.remat = "full"
    config.optimizer.update(lr=6e-4, lr_batch=1024, clip_norm=0.02)
    config.schedule.warmup_epochs = 30.0
    config.expected = dict(top1=88.4, source="the authors' model zoo, after K710 and fine-tuning")
    return config
