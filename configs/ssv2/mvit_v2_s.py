"""MViTv2-S on Something-Something v2 from Kinetics-400 weights, arXiv:2112.01526, appendix.

  VIDJAX_DATA=/data vidjax train --config configs/ssv2/mvit_v2_s.py --workdir runs/mvit_ssv2 \
      --config.init.path=MViTv2_S_16x4_k400_f302660347.pyth

PySlowFast's numbers: SGD with Nesterov momentum 0.9, 100 epochs, a half-cosine schedule after a warmup of 3
epochs from 4 % of the peak, weight decay 1e-4, drop path 0.4, dropout 0.5, RandAugment of magnitude 7 and 4
operations, random erasing 0.25, mixup 0.8, cutmix 1.0, label smoothing 0.1, no flipping. Deviation: they feed
blue before red.

Data: a folder ssv2 under VIDJAX_DATA with the published lists and videos (docs/datasets.md): 168,913 training
and 24,777 validation videos.
Effective batch: 128 clips = 64 devices x 2 clips x 1 accumulation step x 1 clip per video. Learning rate:
0.0025 for 16 clips, linear in the batch.
Clips: one frame from each of 16 equal parts of the video; crops of 224 pixels of frames whose shorter side is
256 to 320.
Views: 1 clip x 3 crops, shorter side 256, scores averaged.
Hardware and hours: not published, nor measured here.
Expected: 68.2 / 91.4 (PySlowFast's model zoo).
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    args = parse_arg(arg)
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 128
    config.epochs = 100.0

    config.data = dict(
        name="ssv2",
        options=dict(path="ssv2"),
        train_split="train",
        eval_split="val",
        frames=16,
        sampling="segments",
        size=224,
        short_side=256,
        crop="short_side",
        short_side_range=(256, 320),
        short_side_inverse=True,
        flip=False,
        auto_augment="rand-m7-n4-mstd0.5-inc1",
    )

    config.model = dict(name="mvit_v2_s_16x4", options=dict(dropout=0.5, drop_path=0.4))

    config.init = dict(skip=("params/head",))

    config.task = dict(name="classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0, random_erasing=0.25)

    config.optimizer = dict(
        name="sgd", lr=0.0025, lr_batch=16, momentum=0.9, nesterov=True, weight_decay=1e-4
    )

    config.schedule = dict(name="cosine", warmup_epochs=3.0, warmup_lr=0.04, end_lr=4e-4)

    config.evals = dict(val=dict(type="metrics", every=2.0, clips=1, crops=3, batch=64))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=68.2, source="PySlowFast model zoo")
    return config
