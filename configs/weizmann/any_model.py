"""Any model in its tiny preset on Weizmann (10 actions, performers held out), under one small budget.

  VIDJAX_DATA=/data vidjax train --config configs/weizmann/any_model.py:model=s3d --workdir runs/weizmann_s3d

Data as in slow_fusion_conv4.py: 60 training clips, 30 test clips of three other performers. 8 gray frames of
48x48, every third one. Hardware: two CPU cores, about a minute. Batch 16 on one device, no accumulation, 300
updates (80 epochs); the learning rate is not scaled. Views: 3 clips x 1 crop, scores averaged. The
experiments that compare models start from here.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "model=NAME", "test=NAME+NAME…" for the performers held out, and "smoke"."""
    args = parse_arg(arg, model="slow_fusion_conv4", test="lyova+moshe+shahar")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 16
    config.epochs = 80.0

    config.data = dict(
        name="video_folder",
        options=dict(path="weizmann10", csv="clips.csv", test_groups=tuple(args.test.split("+"))),
        frames=8,
        stride=3.0,
        size=48,
        short_side=54,
        crop="random_resized",
        scale=(0.5, 1.0),
        flip=True,  # the actions go either way
        grey=True,
        color_jitter=0.3,
        cache=True,
    )

    config.model = dict(name=args.model, tiny=True)

    config.task = dict(name="classification", label_smoothing=0.1)

    config.optimizer = dict(name="adamw", lr=2e-3, weight_decay=0.05, clip_norm=1.0, ema=0.99)

    config.schedule = dict(name="cosine", warmup_epochs=5.0)

    config.evals = dict(val=dict(type="metrics", every=0.0, clips=3, crops=1))
    config.checkpoint = dict(every_epochs=0.0)
    config.log_every = 100
    return config
