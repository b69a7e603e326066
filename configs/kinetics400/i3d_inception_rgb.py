"""I3D Inception-v1 on RGB frames of Kinetics-400, inflated from ImageNet weights.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/i3d_inception_rgb.py --workdir runs/i3d_rgb \
      --config.init.path=runs/inception_v1_same

Carreira & Zisserman, arXiv:1705.07750, section 3, in the numbers of the authors' repository: SGD with
momentum 0.9 on 64 replicas of 6 clips, learning rate 0.1 divided by 10 after 97,000 and 108,000 of 115,000
steps, weight decay 1e-7, dropout 0.5; 64 frames in a row at 25 fps, crops of 224 pixels from frames whose
shorter side is 256, randomly flipped. Without `init.path` it trains from scratch. Weights of torchvision's
GoogLeNet can initialize it as well, with --config.model.options.norm_scale=True and
--config.model.options.padding=ceil.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed, which makes 184 epochs of the steps.
Effective batch: 384 clips = 64 devices x 6 x 1 accumulation step; the learning rate is not scaled. BatchNorm:
statistics of 6 clips (`bn_groups`), the running ones with decay 0.999.
Views: the authors test on whole videos of 250 frames, one center crop; here 5 clips of 64 frames, which cover
a video, scores averaged.
Hardware: 64 GPUs; hours not measured.
Expected: 71.1 / 89.3 (the authors' repository, test set, from ImageNet weights), 68.4 / 88.0 from scratch.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg

VIDEOS = 240_000


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = ConfigDict()
    config.smoke = parse_arg(arg).smoke
    config.seed = 0
    config.batch = 384
    config.steps = 115_000

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=64,
        stride=1.0,
        target_fps=25.0,
        size=224,
        short_side=256,
        crop="short_side",
        short_side_range=(256, 256),
        flip=True,
        workers=32,
    )

    config.model = dict(name="i3d_inception_rgb", options=dict(dropout=0.5, bn_groups=64))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-7)

    epochs = [steps * config.batch / VIDEOS for steps in (97_000, 108_000)]
    config.schedule = dict(name="step", milestones=tuple(epochs), factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=10.0, clips=5, crops=1, batch=64))
    config.checkpoint = dict(every_epochs=2.0)
    config.log_every = 100

    config.expected = dict(top1=71.1, source="the authors' repository, test set, whole videos")
    return config
