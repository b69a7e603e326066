"""All events of a rendered scene, from one clip that spans most of it.

  vidjax train --config configs/synthetic_scenes/multi_label.py --workdir runs/scenes_multi_label

Hardware: two CPU cores, six minutes, after two to render the 1,000 scenes. Batch 16 on one device, no
accumulation, 1,000 updates; the learning rate is not scaled. One clip of 32 frames spans 8 s.
Measured once: map 0.464; random scores 0.362, a model of one frame 0.362.
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
    config.epochs = 20.0

    config.data = dict(
        name="synthetic_scenes",
        options=dict(size=64, seconds=10.0, train=800, val=100, test=100),
        frames=32,
        stride=3.0,
        size=48,
        short_side=48,
        crop="center",
        flip=False,
        cache=True,
    )

    config.model = dict(name=args.model)

    config.task = dict(name="multi_label")

    config.optimizer = dict(name="adamw", lr=2e-3, weight_decay=0.02, clip_norm=1.0, ema=0.99)

    config.schedule = dict(name="cosine", warmup_epochs=1.0)

    config.evals = dict(val=dict(type="metrics", every=10.0, clips=1, crops=1))
    config.checkpoint = dict(every_epochs=10.0)
    config.log_every = 50
    return config
