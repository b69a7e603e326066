"""A small 3D CNN from scratch on Weizmann: ten actions, nine performers, 90 clips.

  VIDJAX_DATA=/data vidjax train --config configs/weizmann/slow_fusion_conv4.py --workdir runs/weizmann

Data: Blank et al., "Actions as Space-Time Shapes", ICCV 2005; a folder weizmann10 under VIDJAX_DATA, or
--config.data.options.path=DIR, with the clips and clips.csv (path, label, group = performer). The split is by
performer, never by clip. "test=lyova+moshe+shahar" (the default) is the short protocol: 60 training clips and
30 test clips; leave-one-performer-out is experiments/weizmann/run.py.

Hardware: two CPU cores, a few minutes. Batch 16 on one device, no accumulation; the learning rate is not
scaled. Views: 5 clips x 3 crops, scores averaged.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", "test=NAME+NAME…" for the performers held out, "model=NAME"."""
    args = parse_arg(arg, test="lyova+moshe+shahar", model="slow_fusion_conv4")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 16
    config.epochs = 400.0

    config.data = dict(
        name="video_folder",
        options=dict(path="weizmann10", csv="clips.csv", test_groups=tuple(args.test.split("+"))),
        frames=16,
        stride=2.0,
        size=64,
        short_side=72,
        crop="random_resized",
        scale=(0.5, 1.0),
        flip=True,  # the actions go either way
        grey=True,
        color_jitter=0.3,
    )

    config.model = dict(name=args.model, options=dict(dropout=0.3))

    config.task = dict(name="classification", label_smoothing=0.1)

    config.optimizer = dict(name="adamw", lr=2e-3, weight_decay=0.05, ema=0.99)

    config.schedule = dict(name="cosine", warmup_epochs=10.0)

    config.evals = dict(val=dict(type="metrics", every=0.0, clips=5, crops=3))
    config.checkpoint = dict(every_epochs=100.0)
    config.log_every = 100
    return config
