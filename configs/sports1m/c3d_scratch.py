"""C3D from scratch on Sports-1M.

  VIDJAX_DATA=/data vidjax train --config configs/sports1m/c3d_scratch.py --workdir runs/c3d

Tran et al., arXiv:1412.0767, section 3.2: five clips of two seconds drawn from each training video, frames
resized to 128x171, 16 in a row cropped to 112x112 at random in space and time, flipped half the
time; SGD, batches of 30, learning rate 0.003 halved every 150,000 steps, 1.9 million steps, which the paper
calls 13 epochs. Momentum 0.9, weight decay 0.005 on kernels and dropout 0.5 are those of the authors'
released solver for UCF101; the paper does not give them.

Data: a folder sports1m under VIDJAX_DATA with the published lists (docs/datasets.md); 876,920 training videos
are assumed (1.9 million x 30 / 13 / 5 clips). A video with several labels is trained and tested with its
first. Deviation: clips are drawn from the whole video at every step, not from five fixed clips per video.
Effective batch: 30 clips on one device, no accumulation; the learning rate is not scaled. Hardware and hours:
not measured (the paper: one K40).
Views: 10 clips x the center crop, scores averaged.
Expected: video hit@1 60.0, hit@5 84.4 (the paper, Table 2); 61.1 / 85.2 from weights trained on I380K.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg

VIDEOS = 876_920


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = ConfigDict()
    config.smoke = parse_arg(arg).smoke
    config.seed = 0
    config.batch = 30
    config.steps = 1_900_000

    config.data = dict(
        name="sports1m",
        options=dict(path="sports1m"),
        frames=16,
        stride=1.0,
        size=112,
        short_side=128,
        crop="short_side",
        short_side_range=(128, 128),
        flip=True,
        workers=8,
    )

    config.model = dict(name="c3d", options=dict(dropout=0.5))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.003, momentum=0.9, weight_decay=0.005)

    halvings = [step * config.batch / VIDEOS for step in range(150_000, config.steps, 150_000)]
    config.schedule = dict(name="step", milestones=tuple(halvings), factor=0.5)

    config.evals = dict(val=dict(type="metrics", every=5.0, clips=10, crops=1))
    config.checkpoint = dict(every_epochs=0.5)
    config.log_every = 100

    config.expected = dict(top1=60.0, source="arXiv:1412.0767, Table 2, video hit@1")
    return config
