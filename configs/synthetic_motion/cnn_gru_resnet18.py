"""A GRU over a small image CNN on the twelve kinds of motion that no single frame tells.

  vidjax train --config configs/synthetic_motion/cnn_gru_resnet18.py --workdir runs/motion_gru

The recipe is that of slow_fusion_conv4.py, with a clipped gradient, as recurrence wants, and more epochs; the
trunk is a ResNet-18 of a quarter of the usual width.
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import slow_fusion_conv4


def get_config(arg: str = "") -> ConfigDict:
    config = slow_fusion_conv4.get_config(arg)
    config.epochs = 10.0
    config.model = dict(name="cnn_gru_resnet18", options=dict(trunk_options=dict(width=16), width=128))
    config.optimizer.clip_norm = 1.0
    config.expected = dict(top1=None, source="")
    return config
