"""TSM ResNet-50 on Kinetics-400, from ImageNet weights.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/tsm_resnet50_8f.py --workdir runs/tsm \
      --config.init.path=resnet50-0676ba61.pth
  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/tsm_resnet50_8f.py:frames=16 …
  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/tsm_resnet50_8f.py:dense …

Lin et al., arXiv:1811.08383, section 5.1, in the numbers of the authors' script: SGD with momentum 0.9,
learning rate 0.02 divided by 10 after 20 and 40 of 50 epochs, the classifier at five times the learning rate,
weight decay 1e-4, gradients clipped to a norm of 20, dropout 0.5; boxes at corners and center of 1, 0.875,
0.75 or 0.66 of the shorter side, randomly flipped. One frame from each of 8 equal parts of the video;
"dense": every eighth frame of 64 (fourth, of 16), for 100 epochs, divided after 40 and 80. `init.path` is
torchvision's ResNet-50, and it goes into the backbone.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 128 clips = 8 devices x 16 x 1 accumulation step. Learning rate: 0.02 for 128 clips, linear
in the batch. BatchNorm: statistics of each device's clips (`bn_groups`).
Views: 1 clip x 1 crop; "dense": 10 clips x 3 crops of 256 pixels.
Hardware and hours: not measured.
Expected: 71.2, with 16 frames 72.6; "dense" 74.1 (the authors' model zoo).
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "smoke", "frames=16", "dense", "model=NAME" for another trunk, such as tsm_mobilenet_v2_8f.
    """
    args = parse_arg(arg, frames=8, dense=False, model="")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 128
    config.epochs = 100.0 if args.dense else 50.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=args.frames,
        stride=64 / args.frames,  # of dense sampling
        sampling="window" if args.dense else "segments",
        size=224,
        short_side=256,
        crop="multi_scale",
        flip=True,
        workers=16,
    )

    name = args.model or ("tsm_resnet50_16f" if args.frames == 16 else "tsm_resnet50_8f")
    config.model = dict(name=name, options=dict(dropout=0.5, bn_groups=8))

    config.task = dict(name="classification")

    config.optimizer = dict(
        name="sgd",
        lr=0.1,  # the classifier's; the trunk's is 0.02
        trunk_lr=0.2,
        lr_batch=128,
        momentum=0.9,
        weight_decay=1e-4,
        clip_norm=20.0,
    )

    config.schedule = dict(name="step", milestones=(40, 80) if args.dense else (20, 40), factor=0.1)

    views = dict(clips=10, crops=3, size=256) if args.dense else dict(clips=1, crops=1)
    config.evals = dict(val=dict(type="metrics", every=5.0, batch=32, **views))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    results = {("tsm_resnet50_8f", False): 71.2, ("tsm_resnet50_16f", False): 72.6}
    results |= {("tsm_resnet50_8f", True): 74.1, ("tsm_mobilenet_v2_8f", True): 69.5}
    config.expected = dict(top1=results.get((name, args.dense)), source="the authors' model zoo")
    return config
