"""ViViT on Kinetics-400 from an image ViT, arXiv:2103.15691, section 4.1 and table 7 (appendix).

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/vivit.py:model=vivit_b_16x2_fe \
      --workdir runs/vivit --config.init.path=vit_base_patch16_224.safetensors

The numbers of the authors' configs (scenic): SGD with momentum 0.9, 30 epochs, a half-cosine schedule to zero
after a warmup of 2.5 epochs, learning rate 0.1 (0.05 for B-FE), gradients clipped at norm 1, no weight decay.
`init.path` expects an image ViT of the same width (ImageNet-21k for the figures); tubelets start from their
central frame, or with init.inflation=average from the average. Color jitter differs in brightness and hue:
theirs adds up to 32 of 255 to all pixels, and turns hue by up to 0.2.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); 214,834 training
and 17,637 validation videos in the authors' configs.
Effective batch: 64 clips = 32 devices x 2 clips x 1 accumulation step x 1 clip per video. The learning rate
does not follow the batch.
Clips: 32 frames, every second, shorter side 256 scaled by 0.9 to 1.33, crop 224.
Views: 4 clips x 3 crops, scores averaged.
Hardware and hours: TPUs; not published, nor measured here.
Expected: B 79.9, B-FE 78.4, L-FE 80.3 (scenic's model zoo); FSA 77.4, FDP 76.3 (table 1); L 80.6 (table 6).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/vivit.py:model=vivit_l_16x2_fe --topology v5e:16x16 --quick \
      --config.model.dtype=bfloat16 --config.model.options.scan=True --config.parallel.mesh.tensor=4
  vidjax plan configs/kinetics400/vivit.py:model=vivit_l_16x2_fe --topology v6e:8x8 --quick \
      --config.model.dtype=bfloat16 --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg
from vidjax.errors import unknown

_ZOO, _PAPER = "scenic, projects/vivit", "arXiv:2103.15691"
# model: learning rate, top-1, its source
MODELS = {
    "vivit_b_16x2": (0.1, 79.9, _ZOO),
    "vivit_b_16x2_fe": (0.05, 78.4, _ZOO),
    "vivit_b_16x2_fsa": (0.1, 77.4, _PAPER),
    "vivit_b_16x2_fdp": (0.1, 76.3, _PAPER),
    "vivit_l_16x2": (0.1, 80.6, _PAPER),
    "vivit_l_16x2_fe": (0.1, 80.3, _ZOO),
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "model=vivit_b_16x2" and the other five; "smoke"."""
    args = parse_arg(arg, model="vivit_b_16x2")
    if args.model not in MODELS:
        raise unknown("model", args.model, MODELS)
    lr, top1, source = MODELS[args.model]
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
        short_side=256,
        crop="short_side",
        short_side_range=(230, 340),
        flip=True,
        color_jitter=0.4,
        color_jitter_probability=0.8,
        grayscale=0.1,
    )

    config.model = dict(name=args.model)

    config.init = dict(skip=("params/head",))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=lr, momentum=0.9, clip_norm=1.0)

    config.schedule = dict(name="cosine", warmup_epochs=2.5)

    config.evals = dict(val=dict(type="metrics", every=5.0, clips=4, crops=3))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=top1, source=source)
    return config
