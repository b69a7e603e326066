"""R(2+1)D-18 from scratch on Kinetics-400, as torchvision trained it.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/r2plus1d_18.py --workdir runs/r2plus1d_18

"model=r3d_18", "model=mc3_18" and "model=r2plus1d_18_paper" train under the same recipe.

Data as in slow_r50.py, about 240,000 training videos.
Effective batch: 1536 clips = 64 GPUs x 24 x 1 accumulation step. Learning rate 0.64 for it, linear in the
batch.
torchvision trains 45 epochs on five clips of each video, which are 225 epochs here: warmup over the first 50,
then a tenth of the learning rate after 100, 150 and 200. Weight decay 1e-4.
BatchNorm: statistics of 24 clips (`bn_groups`). 16 frames in a row at 15 fps, of 128x171 pixels, crop 112.
Views: 5 clips x 1 crop, scores averaged.
Hardware: 64 V100; hours not measured.
Expected: 67.46 / 86.18 (63.20 / 83.48 for r3d_18, 63.96 / 84.13 for mc3_18), torchvision's model zoo.
"""

from ml_collections import ConfigDict

from vidjax import spec
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", "model=NAME"."""
    args = parse_arg(arg, model="r2plus1d_18")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 1536
    config.epochs = 225.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=16,
        stride=1.0,
        target_fps=15.0,
        size=112,
        short_side=128,
        crop="short_side",
        short_side_range=(128, 128),
        flip=True,
    )

    config.model = dict(name=args.model, options=dict(bn_groups=64))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.64, lr_batch=1536, momentum=0.9, weight_decay=1e-4)

    config.schedule = dict(
        name="step", warmup_epochs=50.0, warmup_lr=0.001, milestones=(100.0, 150.0, 200.0), factor=0.1
    )

    config.evals = dict(val=dict(type="metrics", every=5.0, clips=5, crops=1))
    config.checkpoint = dict(every_epochs=5.0)
    config.log_every = 100

    results = spec(args.model).results
    config.expected = dict(top1=results[0].top1 if results else None, source="torchvision model zoo")
    return config
