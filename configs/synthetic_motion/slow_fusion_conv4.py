"""A small 3D CNN on the twelve motions, which a single frame does not reveal.

  vidjax train --config configs/synthetic_motion/slow_fusion_conv4.py --workdir runs/motion_3d

Hardware: two CPU cores, about two minutes. Batch 16 on one device, no accumulation; the learning rate is not
scaled. One view per video (1 clip x 1 crop). 1,200 training and 240 test videos, generated on first use.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", or "model=NAME" for another model under the same recipe."""
    args = parse_arg(arg, model="slow_fusion_conv4")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 16
    config.epochs = 6.0

    config.data = dict(
        name="synthetic_motion",
        options=dict(train=1200, val=240, test=240),
        frames=16,
        stride=1.0,
        size=64,
        short_side=64,
        crop="center",
        flip=False,
    )

    config.model = dict(name=args.model)

    config.task = dict(name="classification")

    config.optimizer = dict(name="adamw", lr=2e-3, weight_decay=0.02)

    config.schedule = dict(name="cosine", warmup_epochs=1.0)

    config.evals = dict(val=dict(type="metrics", every=2.0, clips=1, crops=1))
    config.checkpoint = dict(every_epochs=2.0)
    config.log_every = 25

    config.expected = dict(top1=99.0, source="measured here")
    return config
