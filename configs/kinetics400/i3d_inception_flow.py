"""I3D Inception-v1 on optical flow of Kinetics-400, inflated from ImageNet weights.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/i3d_inception_flow.py --workdir runs/i3d_flow \
      --config.init.path=runs/inception_v1_same
  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/i3d_inception_flow.py:again \
      --workdir runs/i3d_flow_again --config.init.path=runs/i3d_flow

The recipe is that of i3d_inception_rgb.py, twice, as in the authors' repository: 115,000 steps with the
learning rate divided by 10 after 97,000 and 104,500, and from there 40,000 more at the first learning rate,
divided after 25,000 and 35,000. Flow is TV-L1 at 25 fps, clipped to 20 pixels and scaled to 1
(arXiv:1705.07750, section 3); where OpenCV lacks it, --config.data.flow.method=dis. The first kernel is
ImageNet's, averaged over colors. `vidjax fuse` averages the scores of the two streams; the authors add
logits, as i3d_inception_two_stream does.

Data, batch, BatchNorm, views and hardware as there: 384 clips = 64 devices x 6 x 1, about 240,000 training
videos; the learning rate is not scaled. Hours: not measured.
Expected: 63.4 / 84.9 (the authors' repository, test set), 61.5 / 83.4 from scratch; with RGB frames 74.2 /
91.3.
"""

from ml_collections import ConfigDict

from configs.kinetics400 import i3d_inception_rgb
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", "again" for the second part."""
    args = parse_arg(arg, again=False)
    config = i3d_inception_rgb.get_config("smoke" if args.smoke else "")
    config.steps, milestones = (40_000, (25_000, 35_000)) if args.again else (115_000, (97_000, 104_500))
    config.data.flow = dict(method="tvl1", bound=20.0)
    config.model.name = "i3d_inception_flow"
    config.schedule.milestones = tuple(s * config.batch / i3d_inception_rgb.VIDEOS for s in milestones)
    config.expected = dict(top1=63.4, source="the authors' repository, test set, whole videos")
    return config
