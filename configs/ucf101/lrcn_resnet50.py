"""LRCN on UCF101, split 1: an LSTM of 256 units with a label for every frame, on a ResNet-50.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/lrcn_resnet50.py --workdir runs/lrcn \
      --config.init.path=resnet50.pth

Donahue et al., arXiv:1411.4389, section 4, with the settings of the authors' released solver: SGD, learning
rate 0.001 (ten times that for the classifier) divided by 10 every 10,000 steps, weight decay 0.005, gradients
clipped at norm 5, dropout 0.9 before the LSTM and 0.5 after it, 16 frames in a row, random crops of frames
240 pixels high, randomly flipped. The number of steps, 30,000, is not in the released files. Theirs starts
from a CaffeNet fine-tuned on single frames; `init.path` is a ResNet-50 of ImageNet, or such a one.

Data: 9,537 training and 3,783 test videos in a folder ucf101 under VIDJAX_DATA, with the published lists
(docs/datasets.md), of which "split" selects the fold. Batch 24 on one device, no accumulation; the learning
rate is not scaled. Views: 20 clips x 1 crop, scores averaged; the paper's clips begin 8 frames apart, which
is 22 clips of a video of mean length. Hardware and hours: not measured.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "smoke", "split=2" for another of the three splits, "trunk=frozen" to train the LSTM alone.
    """
    args = parse_arg(arg, split=1, trunk="")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 24
    config.steps = 30_000

    config.data = dict(
        name="ucf101",
        options=dict(path="ucf101", fold=args.split),
        frames=16,
        stride=1.0,
        size=224,
        short_side=240,
        crop="short_side",
        short_side_range=(240, 240),
        flip=True,
        workers=16,
    )

    config.model = dict(name="lrcn_resnet50", options=dict(frozen=args.trunk == "frozen"))

    config.init = dict(skip=("^params/(rnn1|head)/",))

    config.task = dict(name="classification", per_frame=True)

    config.optimizer = dict(
        name="sgd",
        lr=0.01,
        trunk_lr=0.1,
        momentum=0.9,
        weight_decay=0.005,
        clip_norm=5.0,
    )

    # Epochs of 9,537 videos: 10,000 and 20,000 steps.
    config.schedule = dict(name="step", milestones=(25.2, 50.3), factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=25.0, clips=20, crops=1, batch=8))
    config.checkpoint = dict(every_epochs=5.0)
    config.log_every = 100

    config.expected = dict(top1=None, source="not measured; the paper, with flow on CaffeNet: 82.3")
    return config
