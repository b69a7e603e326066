"""TSM ResNet-50 on Something-Something v2, from ImageNet weights.

  VIDJAX_DATA=/data vidjax train --config configs/ssv2/tsm_resnet50_8f.py --workdir runs/tsm_ssv2 \
      --config.init.path=resnet50-0676ba61.pth

Lin et al., arXiv:1811.08383, in the numbers of the authors' repository for Something-Something: as
kinetics400/tsm_resnet50_8f.py, but learning rate 0.01 for 64 clips; no flipping, since left and right are
classes. "frames=16" takes 16 frames.

Data: a folder ssv2 under VIDJAX_DATA with the published lists and videos (docs/datasets.md): 168,913 training
and 24,777 validation videos.
Effective batch: 64 clips = 8 devices x 8 x 1 accumulation step. Learning rate: 0.01 for 64 clips, linear in
the batch.
Views: 2 clips x 3 crops of 256 pixels, scores averaged.
Hardware and hours: not measured.
Expected: 61.2, with 16 frames 63.1 (the authors' model zoo).
"""

from ml_collections import ConfigDict

from configs.kinetics400 import tsm_resnet50_8f
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", "frames=16"."""
    args = parse_arg(arg, frames=8)
    config = tsm_resnet50_8f.get_config(arg)
    config.batch = 64
    config.data.options = dict(path="ssv2")
    config.data.update(name="ssv2", flip=False)
    config.optimizer.update(lr=0.05, lr_batch=64)
    config.evals.val.update(clips=2, crops=3, size=256)
    top1 = {8: 61.2, 16: 63.1}.get(args.frames)
    config.expected = dict(top1=top1, source="the authors' model zoo, 2 clips x 3 crops")
    return config
