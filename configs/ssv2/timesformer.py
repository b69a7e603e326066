"""TimeSformer on Something-Something v2 from an image ViT, arXiv:2102.05095, section 4.4 and table 6.

  VIDJAX_DATA=/data vidjax train --config configs/ssv2/timesformer.py --workdir runs/timesformer_ssv2 \
      --config.init.path=vit_base_patch16_224.safetensors

The recipe is that of configs/kinetics400/timesformer.py with these changes: no flipping, one frame
from each of 8 (HR 16, L 64) equal parts of the video. Deviation: the authors feed blue before red.

Data: a folder ssv2 under VIDJAX_DATA with the published lists and videos (docs/datasets.md): 168,913 training
and 24,777 validation videos.
Effective batch: 8 clips = 8 devices x 1 clip x 1 accumulation step x 1 clip per video.
Views: 1 clip x 3 crops, scores averaged.
Hardware and hours: 8 GPUs in the authors' configs; not measured here.
Expected: base 59.1 / 85.6, HR 61.8 / 86.9, L 62.0 / 87.5 (the authors' repository).
"""

from ml_collections import ConfigDict

from configs.kinetics400 import timesformer
from vidjax.config import parse_arg
from vidjax.errors import unknown

VARIANTS = {"base": (8, 59.1), "hr": (16, 61.8), "l": (64, 62.0)}  # frames, top-1


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "variant=base", "hr", "l"; "smoke"."""
    args = parse_arg(arg, variant="base")
    if args.variant not in VARIANTS:
        raise unknown("variant", args.variant, VARIANTS)
    frames, top1 = VARIANTS[args.variant]
    config = timesformer.get_config(arg)
    config.data.options = dict(path="ssv2")
    config.data.update(name="ssv2", frames=frames, sampling="segments", target_fps=None, flip=False)
    if args.variant == "l" and not args.smoke:
        config.model.options = dict(frames=frames)
    config.expected = dict(top1=top1, source="the authors' repository")
    return config
