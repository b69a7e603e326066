"""The temporal stream of a two-stream network, on optical flow of the twelve motions.

  vidjax train --config configs/synthetic_motion/two_stream_temporal.py --workdir runs/motion_flow

Sixteen fields of flow, DIS, between neighboring frames of 64x64, computed while loading; a ResNet-18 of a
quarter of the usual width receives them as 32 channels. A shape whose colors cycle in place does not move,
and flow can hardly distinguish its two classes, so flow alone reaches about 11/12 at best.

Hardware: two CPU cores, about two minutes. Batch 16 on one device, no accumulation; the learning rate is not
scaled. One view per video (1 clip x 1 crop). 1,200 training and 240 test videos, generated on first use.
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import slow_fusion_conv4


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = slow_fusion_conv4.get_config(arg)
    config.epochs = 10.0
    config.data.update(frames=16, flow=dict(bound=8.0), workers=2)
    config.model = dict(
        name="two_stream_resnet18_temporal", options=dict(flow_frames=16, trunk_options=dict(width=16))
    )
    config.evals.val.every = 5.0
    config.expected = dict(top1=85.4, source="measured here")
    return config
