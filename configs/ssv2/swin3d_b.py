"""Video Swin-B on Something-Something v2 from Kinetics-400 weights, arXiv:2106.13230, section 4.1.

  VIDJAX_DATA=/data vidjax train --config configs/ssv2/swin3d_b.py --workdir runs/swin3d_ssv2 \
      --config.init.path=swin_base_patch244_window1677_kinetics400_22k.pth

Windows of 16x7x7, the whole clip in time. AdamW, 60 epochs, a half-cosine schedule to zero after a warmup of
2.5 epochs, learning rate 3e-4 and a tenth of it for the backbone, weight decay 0.05, drop path 0.4, dropout
0.5, label smoothing 0.1, RandAugment of magnitude 7 and 4 operations, random erasing 0.25, no flipping.
`init.path` expects weights of the same windows. Deviations: the authors' weight decay spares the tables of
biases, this one biases and norms alone.

Data: a folder ssv2 under VIDJAX_DATA with the published lists and videos (docs/datasets.md): 168,913 training
and 24,777 validation videos.
Effective batch: 64 clips = 8 devices x 8 clips x 1 accumulation step x 1 clip per video, the paper's; the
authors' published config takes 8 accumulation steps at the same learning rate. The learning rate does not
follow the batch.
Clips: one frame from each of 32 equal parts of the video. Crops of 224 pixels of 8 to 100 % of the frame.
Views: 1 clip x 3 crops of frames whose shorter side is 224, scores averaged.
Hardware: 8 GPUs; hours are not published, nor measured here.
Expected: 69.6 / 92.7 (the authors' repository).
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    args = parse_arg(arg)
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 64
    config.epochs = 60.0

    config.data = dict(
        name="ssv2",
        options=dict(path="ssv2"),
        train_split="train",
        eval_split="val",
        frames=32,
        sampling="segments",
        size=224,
        short_side=224,
        crop="random_resized",
        scale=(0.08, 1.0),
        flip=False,
        auto_augment="rand-m7-n4-mstd0.5-inc1",
    )

    window = (2, 3, 3) if args.smoke else (16, 7, 7)
    config.model = dict(name="swin3d_b", options=dict(window=window, dropout=0.5, drop_path=0.4))

    config.init = dict(skip=("params/head",))

    config.task = dict(name="classification", label_smoothing=0.1, random_erasing=0.25, erasing_mode="const")

    config.optimizer = dict(name="adamw", lr=3e-4, b1=0.9, b2=0.999, weight_decay=0.05, trunk_lr=0.1)

    config.schedule = dict(name="cosine", warmup_epochs=2.5)

    config.evals = dict(val=dict(type="metrics", every=5.0, clips=1, crops=3))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=69.6, source="the authors' repository")
    return config
