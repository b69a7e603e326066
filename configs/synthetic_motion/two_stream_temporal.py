"""A temporal stream on optical flow learns the motions that its partner, on a single frame, cannot tell.

  vidjax train --config configs/synthetic_motion/two_stream_temporal.py --workdir runs/motion_flow

Eight fields of flow, DIS, between neighbouring frames of 64x64, computed while loading; a ResNet-18 of a
quarter of the usual width sees them as 16 channels. A shape whose colours cycle in place hardly moves: its
two classes are what flow alone finds hard.

Hardware: two CPU cores, about two minutes. Batch 16 on one device, no accumulation; the learning rate is not
scaled. One view per video (1 clip x 1 crop). 1,200 training and 240 test videos, made on first use.
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import slow_fusion_conv4


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "smoke"."""
    config = slow_fusion_conv4.get_config(arg)
    config.data.update(modality="flow", frames=8, stride=1.0, flow=dict(bound=8.0), workers=2)
    config.model = dict(
        name="two_stream_resnet18_temporal", options=dict(flow_frames=8, trunk_options=dict(width=16))
    )
    config.expected = dict(top1=None, source="")
    return config
