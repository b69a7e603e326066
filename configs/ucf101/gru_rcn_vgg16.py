"""GRU-RCN on UCF101, split 1: convolutional GRUs on five levels of a VGG-16.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/gru_rcn_vgg16.py --workdir runs/gru_rcn \
      --config.init.path=vgg16.pth

Ballas et al., arXiv:1511.06432, section 5.1: clips of 10 frames, dropout 0.7 before each of five classifiers,
Adam, batch 64, multi-scale crops. Theirs starts from a VGG-16 fine-tuned on single frames of UCF101, which
then stays as it is ("trunk=frozen", the default); `init.path` is such a one, or a VGG-16 of ImageNet. The
learning rate, 60 epochs and the cosine are ours; the paper stops early.

Data: as configs/ucf101/lrcn_resnet50.py. Batch 64 = 8 a step on one device x 8 accumulation steps; the
learning rate is not scaled. Views: 25 clips x 1 crop, scores averaged; the paper's also have corners and
flipped copies.
Hardware and hours: not measured.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "smoke", "split=2" for another of the three splits, "model=NAME" for another of the family,
    "trunk=trained" to train the VGG-16 as well."""
    args = parse_arg(arg, split=1, model="gru_rcn_vgg16", trunk="frozen")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 64
    config.epochs = 60.0

    config.data = dict(
        name="ucf101",
        options=dict(path="ucf101", fold=args.split),
        frames=10,
        stride=1.0,
        size=224,
        short_side=256,
        crop="multi_scale",
        flip=True,
        workers=16,
    )

    config.model = dict(name=args.model, options=dict(frozen=args.trunk == "frozen"))

    config.init = dict(skip=("^params/(rcn_|head/)",))

    config.task = dict(name="classification")

    config.optimizer = dict(name="adamw", lr=1e-3, clip_norm=5.0)

    config.schedule = dict(name="cosine", warmup_epochs=1.0)

    config.parallel = dict(accumulation=8)

    config.evals = dict(val=dict(type="metrics", every=10.0, clips=25, crops=1, batch=4))
    config.checkpoint = dict(every_epochs=5.0)
    config.log_every = 50

    config.expected = dict(
        top1={"bi_gru_rcn_vgg16": 80.7, "gru_rcn_vgg16": 79.9}.get(args.model),
        source="the paper, table 1, RGB, split 1",
    )
    return config
