"""C3D from Sports-1M weights, fine-tuned on UCF101, split 1.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/c3d_finetune.py --workdir runs/c3d_ucf101 \
      --config.init.path=c3d.pth

The recipe of the authors' release of arXiv:1412.0767: SGD with momentum 0.9, batches of 30, learning rate
1e-4 divided by 10 every 5,000 of 20,000 steps, weight decay 5e-4 on kernels, dropout 0.5; frames of 128x171,
16 in a row, crops of 112x112, randomly flipped. Their learning rate is doubled for biases, ours is not, and
their clips are every sixteenth frame's where ours begin anywhere.

Data: 9,537 training and 3,783 test videos in a folder ucf101 under VIDJAX_DATA, with the published lists
(docs/datasets.md), of which "split" selects the fold. `init.path` is a run of configs/sports1m/c3d_scratch.py
or a PyTorch file with layers conv1 to fc8; of weights carried over from the authors' Caffe,
--config.model.options.last_pool=ceil pads as they do.
Effective batch: 30 clips on one device, no accumulation; the learning rate is not scaled. Hardware and hours:
not measured.
Views: 10 clips x the center crop, scores averaged.
Expected: none published for this protocol; 82.3 is a linear SVM on the fc6 features of the network as it was
trained on Sports-1M, over three splits (the paper, Table 3).

Planned (docs/slices.md):

  vidjax plan configs/ucf101/c3d_finetune.py --topology v5e:2x2 --quick --config.batch=32
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg

VIDEOS = 9537


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", "split=2" for another of the three splits."""
    args = parse_arg(arg, split=1)
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 30
    config.steps = 20_000

    config.data = dict(
        name="ucf101",
        options=dict(path="ucf101", fold=args.split),
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

    config.init = dict(skip=("params/head",))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=1e-4, momentum=0.9, weight_decay=5e-4)

    steps = range(5_000, config.steps, 5_000)
    config.schedule = dict(
        name="step", milestones=tuple(s * config.batch / VIDEOS for s in steps), factor=0.1
    )

    config.evals = dict(val=dict(type="metrics", every=10.0, clips=10, crops=1))
    config.checkpoint = dict(every_epochs=10.0)
    config.log_every = 100

    config.expected = dict(
        top1=None, source="not published; arXiv:1412.0767, Table 3: 82.3 with fc6 and an SVM"
    )
    return config
