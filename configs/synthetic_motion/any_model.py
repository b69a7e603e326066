"""Any model in its tiny preset on the twelve embedded motions, under one small budget.

  vidjax train --config configs/synthetic_motion/any_model.py:model=tsm_resnet50_8f --workdir runs/motion_tsm

Hardware: two CPU cores, one to four minutes. 8 frames of 32x32, every second one of 16. Batch 16 on one
device, no accumulation, 1,500 updates (5 epochs of 4,800 videos); the learning rate is not scaled. One view
per video (1 clip x 1 crop), 240 test videos. The experiments that compare models start from here.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "model=NAME", and "smoke"."""
    args = parse_arg(arg, model="slow_fusion_conv4")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 16
    config.epochs = 5.0

    config.data = dict(
        name="synthetic_motion",
        options=dict(size=32, train=4800, val=240, test=240),
        frames=8,
        stride=2.0,
        size=32,
        short_side=32,
        crop="center",
        flip=False,
        cache=True,
    )

    config.model = dict(name=args.model, tiny=True)

    config.task = dict(name="classification")

    config.optimizer = dict(name="adamw", lr=2e-3, weight_decay=0.02, clip_norm=1.0, ema=0.99)

    config.schedule = dict(name="cosine", warmup_epochs=0.2)

    config.evals = dict(val=dict(type="metrics", every=0.0, clips=1, crops=1))
    config.checkpoint = dict(every_epochs=0.0)
    config.log_every = 250
    return config
