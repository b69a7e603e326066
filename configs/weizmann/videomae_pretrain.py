"""A small masked autoencoder on Weizmann's training clips, without their labels.

  VIDJAX_DATA=/data vidjax train --config configs/weizmann/videomae_pretrain.py --workdir runs/weizmann_mae

Recipe and network of configs/synthetic_motion/videomae_pretrain.py, on 60 clips of six performers (the other
three are never seen): 8 gray frames of 48x48, every third one, randomly flipped and cropped at random; 144
tokens, 36 of them visible. Hardware: two CPU cores, a few minutes. Batch 32 = one device x 16 videos x 2
clips of each, no accumulation; the learning rate is not scaled.

Planned (docs/slices.md):

  vidjax plan configs/weizmann/videomae_pretrain.py --topology v5e:2x2 --quick
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import videomae_pretrain
from configs.weizmann import any_model
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "test=NAME+NAME…" for the performers held out, and "smoke"."""
    args = parse_arg(arg, test="lyova+moshe+shahar")
    config = videomae_pretrain.get_config("smoke" if args.smoke else "")
    config.epochs = 500.0
    config.data = dict(any_model.get_config(f"test={args.test}").data, repeats=2)
    config.schedule.warmup_epochs = 25.0
    for section in config.evals.values():
        section.every = 100.0
    config.checkpoint.every_epochs = 100.0
    return config
