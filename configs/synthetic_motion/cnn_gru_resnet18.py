"""A GRU over a small image CNN on the twelve motions, which a single frame does not reveal.

  vidjax train --config configs/synthetic_motion/cnn_gru_resnet18.py --workdir runs/motion_gru

The recipe is that of slow_fusion_conv4.py, but for 8 frames in place of 16 over the same time, a clipped
gradient, as is usual for recurrent models, and 6,000 training videos: with 1,200 and ten epochs it
overfits (78 % on training videos, 22 % on test videos). The backbone is a ResNet of a quarter of the usual
width with one block in each stage.
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import slow_fusion_conv4
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "smoke", "trunk=frozen", or "features=runs/f/{split}.npz" for cached features of the backbone.
    """
    args = parse_arg(arg, trunk="", features="")
    config = slow_fusion_conv4.get_config("smoke" if args.smoke else "")
    config.epochs = 2.5
    config.schedule.warmup_epochs = 0.2
    config.evals.val.every = config.checkpoint.every_epochs = 0.5
    config.data.options = dict(train=6000, val=240, test=240)
    config.data.update(frames=8, stride=2.0)
    trunk = dict(stage_sizes=(1, 1, 1, 1), width=16)
    options = dict(trunk_options=trunk, width=128, frozen=args.trunk == "frozen")
    config.model = dict(name="cnn_gru_resnet18", options=options)
    if args.features:
        config.data.update(name="features", feature_width=128)
        config.data.options = dict(path=args.features)
        config.model.options.trunk = None
    config.optimizer.clip_norm = 1.0
    config.expected = dict(top1=None, source="")
    return config
