"""VTN on ViT-B/16 on Kinetics-400, arXiv:2102.00719, section 4.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/vtn.py --workdir runs/vtn \
      --config.init.path=vit_base_patch16_224.safetensors
  VIDJAX_DATA=/data vidjax eval --checkpoint runs/vtn --config.data.frames=250 --config.data.stride=1 \
      --config.model.options.stride=1

The numbers of the authors' config (a part of PySlowFast): SGD with momentum 0.9, 25 epochs, learning rate
0.001, a tenth after 13 and again after 24, no weight decay, dropout 0.5 in the classifier and 0.1 in the
layers over time. `init.path` expects an image ViT-B/16 (ImageNet-21k for the figure) for the backbone.
Training sees 16 frames, every eighth, at 25 fps; the second command sees all 250 at once. Their window is 18,
here it is 32.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 16 clips = 4 devices x 4 clips x 1 accumulation step x 1 clip per video. The learning rate
does not follow the batch.
Views: 1 clip x 1 crop of the whole video.
Hardware: 4 GPUs; hours are not published, nor measured here.
Expected: 77.72 / 93.24 (PySlowFast's model zoo).
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    args = parse_arg(arg)
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 16
    config.epochs = 25.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=16,
        stride=8.0,
        target_fps=25.0,
        size=224,
        short_side=256,
        crop="short_side",
        short_side_range=(256, 320),
        flip=True,
    )

    rates = dict(dropout=0.5, encoder_dropout=0.1, attention_dropout=0.1)
    config.model = dict(name="vtn_vit_b_16", options=dict(stride=8, **rates))

    config.init = dict(skip=("params/head/",))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.001, momentum=0.9)

    config.schedule = dict(name="step", milestones=(13.0, 24.0), factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=1.0, clips=1, crops=1))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=77.72, source="PySlowFast's model zoo")
    return config
