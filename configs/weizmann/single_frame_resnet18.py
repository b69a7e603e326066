"""The single-frame baseline on Weizmann, from scratch.

  VIDJAX_DATA=/data vidjax train --config configs/weizmann/single_frame_resnet18.py --workdir runs/frame

The recipe is that of slow_fusion_conv4.py; the backbone is a ResNet-18 of a quarter of the usual width, and
the five test clips give it five frames of each video, three crops of each.
"""

from ml_collections import ConfigDict

from configs.weizmann import slow_fusion_conv4


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: as in slow_fusion_conv4.py."""
    config = slow_fusion_conv4.get_config(arg)
    config.model = dict(name="single_frame_resnet18", options=dict(trunk_options=dict(width=16), dropout=0.3))
    return config
