"""The temporal stream of the two-stream networks on UCF101, split 1: ten fields of flow, CNN-M, from scratch.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/two_stream_temporal.py --workdir runs/temporal

Simonyan & Zisserman, arXiv:1406.2199, sections 3 and 5: L = 10 fields between neighboring frames, less their
means, random crops of 224 from frames whose shorter side is 256, randomly flipped; SGD with momentum 0.9,
batches of 256 videos with one stack each, learning rate 0.01 divided by 10 after 50,000 and 70,000 of 80,000
steps, dropout 0.9. Deviations: flow is DIS on the crops, computed while loading, where the paper stored
Brox's of whole frames; the test views are 25 clips x 3 crops, where the paper's are 25 x 10 (corners and
center, and their flipped copies); weight decay, which the paper does not give, is Caffe's usual 5e-4.

The other half is two_stream_spatial.py; `vidjax eval` both, also with --config.data.eval_split=train, and
`vidjax fuse` averages their scores or fits an SVM.

Data: 9,537 training and 3,783 test videos in a folder ucf101 under VIDJAX_DATA, with the published lists
(docs/datasets.md), of which "split" selects the fold. Batch 256 over all devices, no accumulation; the
learning rate is not scaled. With "model=two_stream_resnet50_temporal" and --config.init.path=resnet50.pth the
first kernel is the ImageNet one, averaged over its colors. Hardware and hours: not measured.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg

VIDEOS = 9537


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "smoke", "split=2" for another of the three splits, "model=NAME" for another temporal stream.
    """
    args = parse_arg(arg, split=1, model="two_stream_cnn_m_temporal")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 256
    config.steps = 80_000

    config.data = dict(
        name="ucf101",
        options=dict(path="ucf101", fold=args.split),
        flow=dict(method="dis", bound=20.0),
        frames=10,
        stride=1.0,
        size=224,
        short_side=256,
        crop="short_side",
        short_side_range=(256, 256),
        flip=True,
        workers=32,
    )

    config.model = dict(name=args.model)

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4)

    epochs = [steps * config.batch / VIDEOS for steps in (50_000, 70_000)]
    config.schedule = dict(name="step", milestones=tuple(epochs), factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=250.0, clips=25, crops=3, batch=8))
    config.checkpoint = dict(every_epochs=25.0)
    config.log_every = 100

    config.expected = dict(top1=None, source="not measured; the paper, mean of the three splits: 83.7")
    return config
