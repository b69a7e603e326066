"""MViT from scratch on Kinetics-400, arXiv:2104.11227, section 4 and appendix, in PySlowFast's numbers.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/mvit_v1.py:model=mvit_v1_b_32x3 --workdir runs/m

The recipe of MViT in both versions: AdamW, 200 epochs, a half-cosine schedule to a hundredth of the peak
after 30 warmup epochs from as much, weight decay 0.05 on all but biases and norms, gradients clipped to a
norm of 1; RandAugment of magnitude 7 and 4 operations, random erasing 0.25, mixup 0.8, cutmix 1.0, label
smoothing 0.1, dropout 0.5, drop path 0.2 (16x4) or 0.3 (32x3).

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 512 clips = 128 devices x 2 videos x 2 clips per video (`repeats`) x 1 accumulation step.
Learning rate: 1e-4 for 16 videos, which are 32 clips, linear in the batch: 1.6e-3. An epoch is each video
once.
Clips: 16 frames, every fourth one, or 32 and every third, at 30 fps; crops of 224 pixels of 8 to 100 % of the
frame, randomly flipped.
Views: 5 clips x 1 crop of 224 pixels, shorter side 256, scores averaged.
Hardware: 128 GPUs for that batch; hours are not published, nor measured here.
Expected, top-1 / top-5: 16x4 78.4 / 93.5, 32x3 80.2 / 94.4 (the paper, Table 4).
"""

from ml_collections import ConfigDict

from vidjax import spec
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", and "model=NAME", one of mvit_v1_*."""
    args = parse_arg(arg, model="mvit_v1_b_16x4")
    return recipe(args, drop_path=0.2 if args.model == "mvit_v1_b_16x4" else 0.3)


def recipe(args: ConfigDict, drop_path: float) -> ConfigDict:
    """The shared recipe for `args.model`."""
    published = spec(args.model)
    frames, size, _, _ = published.input_shape
    clips, crops = map(int, published.results[0].views.split("x"))
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 512
    config.epochs = 200.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=frames,
        stride=float(published.stride),
        target_fps=30.0,
        size=size,
        short_side=size * 8 // 7,
        crop="random_resized",
        scale=(0.08, 1.0),
        flip=True,
        auto_augment="rand-m7-n4-mstd0.5-inc1",
        repeats=2,
    )

    config.model = dict(name=args.model, options=dict(dropout=0.5, drop_path=drop_path))

    config.task = dict(name="classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0, random_erasing=0.25)

    config.optimizer = dict(
        name="adamw", lr=1e-4, lr_batch=32, b1=0.9, b2=0.999, weight_decay=0.05, clip_norm=1.0
    )

    config.schedule = dict(name="cosine", warmup_epochs=30.0, warmup_lr=0.01, end_lr=0.01)

    config.evals = dict(val=dict(type="metrics", every=10.0, clips=clips, crops=crops, batch=64))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=published.results[0].top1, source=published.results[0].source)
    return config
