"""The spatial stream of the two-stream networks on UCF101, split 1: one frame, CNN-M, from ImageNet weights.

  VIDJAX_DATA=/data vidjax train --config configs/ucf101/two_stream_spatial.py --workdir runs/spatial \
      --config.init.path=CNN_M

Simonyan & Zisserman, arXiv:1406.2199, sections 2 and 5: a frame drawn from each of 256 videos, crops of 224
from frames whose shorter side is 256, randomly flipped, with jittered colors; SGD with momentum 0.9, and to
fine-tune an ImageNet network, learning rate 0.01 divided by 10 after 14,000 of 20,000 steps; dropout 0.9.
"last" trains the last layer alone, as the stream that the paper fuses was. `init.path` is a checkpoint of
cnn_m_2048; or, with "model=two_stream_resnet50_spatial", resnet50.pth of torchvision. Deviations: as in
two_stream_temporal.py; the strength of the jitter is not in the paper.

Data, batch, views, hardware and hours: as in two_stream_temporal.py.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg

VIDEOS = 9537


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "smoke", "split=2", "last" for the last layer alone, "model=NAME" for another spatial stream.
    """
    args = parse_arg(arg, split=1, last=False, model="two_stream_cnn_m_spatial")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 256
    config.steps = 20_000

    config.data = dict(
        name="ucf101",
        options=dict(path="ucf101", fold=args.split),
        frames=1,
        stride=1.0,
        size=224,
        short_side=256,
        crop="short_side",
        short_side_range=(256, 256),
        flip=True,
        color_jitter=0.2,
        workers=16,
    )

    config.model = dict(name=args.model, options=dict(frozen=args.last))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4)

    config.schedule = dict(name="step", milestones=(14_000 * config.batch / VIDEOS,), factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=100.0, clips=25, crops=3, batch=8))
    config.checkpoint = dict(every_epochs=25.0)
    config.log_every = 100

    config.expected = dict(top1=None, source="not measured; the paper, mean of the three splits: 73.0")
    return config
