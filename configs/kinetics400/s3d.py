"""S3D from scratch on Kinetics-400.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/s3d.py --workdir runs/s3d

Xie et al., arXiv:1712.04851, section 3: SGD with momentum 0.9 on 56 GPUs of 6 clips each, learning rate 0.1
divided by 10 after 60,000 and 70,000 of 80,000 steps; 64 frames in a row, frames of 256x256, crops of 224.
The paper does not give the weight decay and the dropout: 1e-7 and 0.5 are I3D's, whose setting it keeps, as
is the frame rate of 25 fps.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed, which makes 112 epochs of the steps.
Effective batch: 336 clips = 56 devices x 6 x 1 accumulation step; the learning rate is not scaled. BatchNorm:
statistics of 6 clips (`bn_groups`), the running ones with decay 0.999.
Views: the paper tests on 250 frames, one center crop; here 5 clips of 64 frames, which cover a video, scores
averaged.
Hardware: 56 GPUs; hours not measured.
Expected: 72.2 from ImageNet weights (the paper); from scratch not published. torchvision's weights, of
another recipe, have 68.4 / 88.1 on one clip of 128 frames.
"""

from ml_collections import ConfigDict

from configs.kinetics400 import i3d_inception_rgb


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = i3d_inception_rgb.get_config(arg)
    config.batch = 336
    config.steps = 80_000
    config.model.name = "s3d"
    config.model.options.bn_groups = 56
    config.schedule.milestones = tuple(s * config.batch / i3d_inception_rgb.VIDEOS for s in (60_000, 70_000))
    config.expected = dict(top1=None, source="not published from scratch; 72.2 from ImageNet weights")
    return config
