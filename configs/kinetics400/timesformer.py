"""TimeSformer on Kinetics-400 from an image ViT, arXiv:2102.05095, section 4 and table 5.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/timesformer.py --workdir runs/timesformer \
      --config.init.path=vit_base_patch16_224.safetensors

The paper's recipe in the numbers of its authors' configs: SGD with momentum 0.9, 15 epochs, learning rate
0.005, a tenth after 11 and again after 14, weight decay 1e-4, no warmup. `init.path` expects an image
ViT-B/16 (ImageNet-21k for the figures), of timm or torchvision; what is added to it starts at zero
(docs/weights.md).

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 8 clips = 8 devices x 1 clip x 1 accumulation step x 1 clip per video. The learning rate does
not follow the batch.
Clips: of a frame's shorter side 256 to 320, crop 224 (HR 448 to 512, crop 448).
Views: 1 clip x 3 crops, scores averaged.
Hardware: 8 GPUs in the authors' configs; hours are not measured here.
Expected: base 77.9 / 93.2, HR 79.6 / 94.0, L 80.6 / 94.7 (the authors' repository; 0.1 more in table 5);
of table 1 joint 77.4, space only 76.9, L+G 75.9, T+W+H 73.5.
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg
from vidjax.errors import unknown

# variant: model, frames, stride, size, shorter sides, top-1
VARIANTS = {
    "base": ("timesformer_b_8x32", 8, 32, 224, (256, 320), 77.9),
    "hr": ("timesformer_hr_16x16", 16, 16, 448, (448, 512), 79.6),
    "l": ("timesformer_l_96x4", 96, 4, 224, (256, 320), 80.6),
    "joint": ("timesformer_b_8x32_joint", 8, 32, 224, (256, 320), 77.4),
    "space": ("timesformer_b_8x32_space", 8, 32, 224, (256, 320), 76.9),
    "local_global": ("timesformer_b_8x32_local_global", 8, 32, 224, (256, 320), 75.9),
    "axial": ("timesformer_b_8x32_axial", 8, 32, 224, (256, 320), 73.5),
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "variant=base", "hr", "l", "joint", "space", "local_global", "axial"; "smoke".
    """
    args = parse_arg(arg, variant="base")
    if args.variant not in VARIANTS:
        raise unknown("variant", args.variant, VARIANTS)
    model, frames, stride, size, sides, top1 = VARIANTS[args.variant]
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 8
    config.epochs = 15.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=frames,
        stride=float(stride),
        target_fps=30.0,
        size=size,
        short_side=size,
        crop="short_side",
        short_side_range=sides,
        flip=True,
    )

    config.model = dict(name=model)

    config.init = dict(skip=("params/head",))

    config.task = dict(name="classification")

    config.optimizer = dict(name="sgd", lr=0.005, momentum=0.9, weight_decay=1e-4)

    config.schedule = dict(name="step", milestones=(11.0, 14.0), factor=0.1)

    config.evals = dict(val=dict(type="metrics", every=5.0, clips=1, crops=3))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    source = "the authors' repository" if args.variant in ("base", "hr", "l") else "arXiv:2102.05095, table 1"
    config.expected = dict(top1=top1, source=source)
    return config
