"""Slow-R50 8x8, the slow pathway of SlowFast alone, from scratch on Kinetics-400.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/slow_r50.py --workdir runs/slow_r50

The recipe of Feichtenhofer et al., arXiv:1812.03982, section 4 ("training" and "inference"), in the numbers
of PySlowFast's configs, which C2D, I3D, R(2+1)D-R50 and SlowFast share.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 64 clips = 8 devices x 8 clips x 1 accumulation step x 1 clip per video. Learning rate: 0.1
for 64 clips, linear in the batch (`lr_batch`). 196 epochs, warmup of 34 epochs from a tenth of the peak, a
half-cosine schedule to zero.
BatchNorm: statistics of 8 clips in training (`bn_groups`), of 200 batches for evaluation.
Views: 10 clips x 3 crops of 256 pixels, scores averaged.
Hardware: 8 GPUs; hours are not published, nor measured here.
Expected: 74.58 / 91.63 (pytorchvideo's model zoo; 74.8 / 91.6 in PySlowFast's).
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    return recipe(parse_arg(arg), "slow_r50_8x8", frames=8, stride=8, top1=74.58)


def recipe(
    args: ConfigDict,
    model: str,
    frames: int,
    stride: float,
    top1: float | None,
    source: str = "pytorchvideo model zoo",
    **options,
) -> ConfigDict:
    """The shared recipe for a model of `frames` frames, every `stride`-th one at 30 fps."""
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 64
    config.epochs = 196.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=frames,
        stride=float(stride),
        target_fps=30.0,
        size=224,
        short_side=256,
        crop="short_side",
        short_side_range=(256, 320),
        flip=True,
    )

    config.model = dict(name=model, options=dict(dropout=0.5, bn_groups=8, **options))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.1, lr_batch=64, momentum=0.9, nesterov=True, weight_decay=1e-4)

    config.schedule = dict(name="cosine", warmup_epochs=34.0, warmup_lr=0.1)

    config.evals = dict(val=dict(type="metrics", every=10.0, clips=10, crops=3, size=256))
    config.model.precise_bn_batches = 200
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=top1, source=source)
    return config
