"""VideoMAE V2 ViT-g: the labeled step between pretraining and the target data, on Kinetics-710,
arXiv:2303.16727, section 3.3 ("progressive training") and appendix.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics710/videomae_v2_g_finetune.py \\
      --workdir runs/mae_g_k710 --config.init.path=runs/mae_g

The authors' script (vit_g_k710_ft): as videomae_b_finetune.py of Kinetics-400 but learning rate 1e-3 x videos
/ 256, weight decay 0.1, layer decay 0.9, drop path 0.3, gradient clipped at 5, 35 epochs, 5 of warmup. Blocks
are recomputed in the backward pass. `init.path` is a run of configs/kinetics400/videomae_v2_g_pretrain.py.

Data: a folder kinetics710 under VIDJAX_DATA with the published lists and videos of Kinetics-400, 600 and 700
(docs/datasets.md), merged into 710 classes without duplicates and without validation videos in training;
658,340 training and 66,803 validation videos (the authors).
Effective batch: 192 clips = 32 devices x 3 videos x 2 clips of each (repeated augmentation) x 1 accumulation
step; the learning rate counts videos, so `lr_batch` is 512 clips.
Views: 5 clips x 3 crops of 224 at a shorter side of 224, scores averaged.
Hardware: 32 A100 GPUs of 80 GB in the authors' script; hours are not measured here.
Expected: 83.8 / 96.4 on Kinetics-710 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics710/videomae_v2_g_finetune.py --topology v5e:8x8 --quick \
      --config.model.options.scan=True --config.parallel.mesh.fsdp=16
"""

from ml_collections import ConfigDict

from configs.kinetics400 import videomae_b_finetune


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = videomae_b_finetune.get_config(arg)
    config.batch = 192
    config.epochs = 35.0
    config.data.options = dict(path="kinetics710", classes=710)
    config.model.name = "videomae_v2_g"
    config.model.options.update(drop_path=0.3, remat="full")
    config.optimizer.update(lr=1e-3, weight_decay=0.1, layer_decay=0.9, clip_norm=5.0)
    config.schedule.update(warmup_lr=1e-5, end_lr=0.001)
    config.expected = dict(top1=83.8, source="the authors' model zoo")
    return config
