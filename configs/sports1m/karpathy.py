"""The four fusions of Karpathy et al. on Sports-1M, from scratch.

  VIDJAX_DATA=/data vidjax train --config configs/sports1m/karpathy.py:slow_fusion --workdir runs/slow_fusion

"Large-scale Video Classification with Convolutional Neural Networks", CVPR 2014, sections 3 and 4: SGD with
momentum 0.9, batches of 32, weight decay 5e-4, learning rate 1e-3; frames with a shorter side of 200, crops
of 170 at random, flipped half the time, pixels less 117; about 50 million clips seen. Deviations: one
synchronous run in place of 10 to 50 replicas of Downpour SGD; the paper lowers the learning rate by hand when
validation accuracy plateaus, here it is divided by 10 after 60 % and 85 % of the steps; dropout 0.5, which it
does not mention.

Data: a folder sports1m under VIDJAX_DATA with the published lists (docs/datasets.md); 793,000 training videos
are assumed (70 % of 1,133,158). A video with several labels is trained and tested with its first.
Effective batch: 32 clips on one device, no accumulation; the learning rate is not scaled.
Views: 20 clips x 3 crops, scores averaged; the paper takes 4 crops and mirrors.
Hardware: the paper, 10 to 50 replicas for a month; not measured.
Expected: video hit@1 and hit@5, Table 1: single_frame 59.3 / 77.7, early_fusion 57.7 / 76.8, late_fusion
59.3 / 78.7, slow_fusion 60.9 / 80.2.
"""

from ml_collections import ConfigDict

from vidjax import spec
from vidjax.config import parse_arg

VIDEOS = 793_000
KINDS = ("single_frame", "early_fusion", "late_fusion", "slow_fusion")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "smoke", and one of single_frame (the default), early_fusion, late_fusion, slow_fusion.
    """
    args = parse_arg(arg, **dict.fromkeys(KINDS, False))
    model = spec("karpathy_" + next((k for k in KINDS if args[k]), "single_frame"))
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 32
    config.steps = 50_000_000 // 32

    config.data = dict(
        name="sports1m",
        options=dict(path="sports1m"),
        frames=model.input_shape[0],
        stride=float(model.stride),
        size=170,
        short_side=200,
        crop="short_side",
        short_side_range=(200, 200),
        flip=True,
        workers=8,
    )

    config.model = dict(name=model.name, options=dict(dropout=0.5))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=1e-3, momentum=0.9, weight_decay=5e-4)

    epochs = config.steps * config.batch / VIDEOS
    config.schedule = dict(name="step", milestones=(0.6 * epochs, 0.85 * epochs), factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=5.0, clips=20, crops=3))
    config.checkpoint = dict(every_epochs=0.5)
    config.log_every = 100

    config.expected = dict(top1=model.results[0].top1, source="CVPR 2014, Table 1, video hit@1")
    return config
