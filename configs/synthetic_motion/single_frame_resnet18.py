"""The single-frame baseline on the twelve motions: it sees one frame and stays near chance.

  vidjax train --config configs/synthetic_motion/single_frame_resnet18.py --workdir runs/motion_frame

The recipe is that of slow_fusion_conv4.py; the backbone is a ResNet-18 of a quarter of the usual width. Its
step is so short that two processes decode for it.
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import slow_fusion_conv4


def get_config(arg: str = "") -> ConfigDict:
    config = slow_fusion_conv4.get_config(arg)
    config.model = dict(name="single_frame_resnet18", options=dict(trunk_options=dict(width=16)))
    config.data.workers = 2
    config.expected = dict(top1=100 / 12, source="chance, by the construction of the data")
    return config
