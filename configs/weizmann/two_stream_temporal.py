"""A temporal stream on optical flow, from scratch, on Weizmann.

  VIDJAX_DATA=/data vidjax train --config configs/weizmann/two_stream_temporal.py --workdir runs/weizmann_flow

The recipe is that of slow_fusion_conv4.py. Ten fields of flow, DIS, two frames apart, computed on the crops
while loading; a ResNet-18 of a quarter of the usual width receives them as 20 channels.
"""

from ml_collections import ConfigDict

from configs.weizmann import slow_fusion_conv4


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: as in slow_fusion_conv4.py."""
    config = slow_fusion_conv4.get_config(arg)
    config.data.update(frames=10, stride=2.0, flow=dict(bound=8.0), color_jitter=0.0, workers=2)
    config.model = dict(
        name="two_stream_resnet18_temporal", options=dict(trunk_options=dict(width=16), dropout=0.3)
    )
    return config
