"""Video Swin on Kinetics-400 from ImageNet weights, arXiv:2106.13230, section 4.1.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/swin3d.py:model=swin3d_t --workdir runs/swin3d \
      --config.init.path=SWIN

AdamW, 30 epochs, a half-cosine schedule to zero after a warmup of 2.5 epochs; the backbone at a tenth of the
head's learning rate. Learning rate and weight decay: swin3d_t and swin3d_s 1e-3 and 0.02, swin3d_b and
swin3d_l (ImageNet-21K) 3e-4 and 0.05; drop path 0.1, 0.2, 0.2 and 0.2; dropout 0.5. `init.path` is a
checkpoint of vidjax or a Video Swin of torchvision or the authors. Deviations: the authors' weight decay
spares the tables of biases, this one biases and norms alone.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 64 clips = 8 devices x 8 clips x 1 accumulation step x 1 clip per video, the paper's; the
authors' published configs take 4 (T) or 8 (S, B) accumulation steps at the same rates. The learning rate does
not follow the batch.
Clips: 32 frames, every second one. Crops of 224 pixels of 8 to 100 % of the frame, randomly flipped.
Views: 4 clips x 3 crops of frames whose shorter side is 224, scores averaged.
Hardware: 8 GPUs; hours are not published, nor measured here.
Expected, top-1 / top-5: T 78.8 / 93.6, S 80.6 / 94.5, B 82.7 / 95.5 (authors' repository), L 83.1 / 95.9.

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/swin3d.py:model=swin3d_b --topology v5e:16x16 \
      --config.model.dtype=bfloat16 --config.batch=256
  vidjax plan configs/kinetics400/swin3d.py:model=swin3d_b --topology v6e:8x8 --quick \
      --config.model.dtype=bfloat16
"""

from ml_collections import ConfigDict

from vidjax import spec
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", and "model=NAME", one of swin3d_*."""
    args = parse_arg(arg, model="swin3d_t")
    large = args.model in ("swin3d_b", "swin3d_l")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 64
    config.epochs = 30.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=32,
        stride=2.0,
        size=224,
        short_side=224,
        crop="random_resized",
        scale=(0.08, 1.0),
        flip=True,
    )

    config.model = dict(
        name=args.model, options=dict(dropout=0.5, drop_path=0.1 if args.model == "swin3d_t" else 0.2)
    )

    config.init = dict(skip=("params/head",))

    config.task = dict(name="classification")

    config.optimizer = dict(
        name="adamw",
        lr=3e-4 if large else 1e-3,
        b1=0.9,
        b2=0.999,
        weight_decay=0.05 if large else 0.02,
        trunk_lr=0.1,
    )

    config.schedule = dict(name="cosine", warmup_epochs=2.5)

    config.evals = dict(val=dict(type="metrics", every=5.0, clips=4, crops=3))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=spec(args.model).results[0].top1, source="the authors' repository")
    return config
