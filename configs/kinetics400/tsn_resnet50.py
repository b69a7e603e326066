"""TSN ResNet-50 on Kinetics-400, from ImageNet weights: the baseline of TSM.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/tsn_resnet50.py --workdir runs/tsn \
      --config.init.path=resnet50-0676ba61.pth

The recipe is that of tsm_resnet50_8f.py, on 5 segments, which the authors of TSM recommend for a network
without temporal modeling. The test takes 10 clips of 5 frames x 3 crops of 256 pixels, theirs 8 frames a
clip.
Effective batch: 128 clips = 8 devices x 16 x 1 accumulation step; about 240,000 training videos are assumed.
Hardware and hours: not measured.
Expected: 70.6 (the authors' model zoo), and of one view of 8 segments 68.8.
"""

from ml_collections import ConfigDict

from configs.kinetics400 import tsm_resnet50_8f


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = tsm_resnet50_8f.get_config(arg)
    config.data.frames = 5
    config.model.name = "tsn_resnet50"
    config.evals.val.update(clips=10, crops=3)
    config.evals.val.size = 256
    config.expected = dict(top1=70.6, source="TSM's authors' model zoo, 10 clips of 8 frames x 3 crops")
    return config
