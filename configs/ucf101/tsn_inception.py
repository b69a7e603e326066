"""TSN on RGB frames of UCF101, split 1, from ImageNet weights.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/tsn_inception.py --workdir runs/tsn \
      --config.init.path=googlenet-1378be20.pth
  VIDJAX_DATA=/data vidjax train --config configs/ucf101/tsn_inception.py:model=tsn_resnet50 \
      --workdir runs/tsn --config.init.path=resnet50-0676ba61.pth

Wang et al., arXiv:1608.00859, sections 3.2 and 4.1: three segments; SGD with momentum 0.9, batches of 256,
learning rate 0.001 divided by 10 after 2,000 and 4,000 of 4,500 steps; BatchNorm keeps its statistics but the
first one (`partial_bn`), dropout 0.8; boxes at corners and center of 1, 0.875, 0.75 or 0.66 of the shorter
side, randomly flipped. Weight decay 5e-4 is that of the authors' solver. Deviations: torchvision's GoogLeNet
with BatchNorm in place of BN-Inception.

Data: a folder ucf101 under VIDJAX_DATA with the published lists (docs/datasets.md): 9,537 training and 3,783
test videos in split 1.
Effective batch: 256 clips of 3 frames on one device, no accumulation; the learning rate is not scaled.
Views: 8 clips of 3 frames x 3 crops; the paper takes 25 frames x 10 crops.
Hardware and hours: not measured.
Expected: not measured; the paper's 94.0 is of two streams and warped flow, mean of the three splits.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg

VIDEOS = 9537


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", "split=2", "model=NAME"."""
    args = parse_arg(arg, split=1, model="tsn_inception_v1_bn")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 256
    config.steps = 4500

    config.data = dict(
        name="ucf101",
        options=dict(path="ucf101", fold=args.split),
        frames=3,
        sampling="segments",
        size=224,
        short_side=256,
        crop="multi_scale",
        flip=True,
        workers=16,
    )

    config.model = dict(name=args.model, options=dict(dropout=0.8, partial_bn=True))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.001, momentum=0.9, weight_decay=5e-4)

    milestones = tuple(step * config.batch / VIDEOS for step in (2000, 4000))
    config.schedule = dict(name="step", milestones=milestones, factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=20.0, clips=8, crops=3, batch=16))
    config.checkpoint = dict(every_epochs=10.0)
    config.log_every = 50

    config.expected = dict(top1=None, source="not measured")
    return config
