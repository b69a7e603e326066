"""Weizmann's ten actions by a small ViT, fine-tuned after masked pretraining or from scratch.

  VIDJAX_DATA=/data vidjax train --config configs/weizmann/videomae_finetune.py --workdir runs/tuned \\
      --config.init.path=runs/weizmann_mae
  VIDJAX_DATA=/data vidjax train --config configs/weizmann/videomae_finetune.py --workdir runs/scratch

Data, batch, length and views of any_model.py (60 training clips, 30 test clips of other performers), encoder
of videomae_pretrain.py. Hardware: two CPU cores, a minute. The learning rate is not scaled.

Planned (docs/slices.md):

  vidjax plan configs/weizmann/videomae_finetune.py --topology v5e:2x2 --quick
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import videomae_finetune
from configs.weizmann import any_model
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "test=NAME+NAME…" for the performers held out, and "smoke"."""
    args = parse_arg(arg, test="lyova+moshe+shahar")
    config = any_model.get_config(f"test={args.test},smoke={args.smoke}")
    tune = videomae_finetune.get_config()
    config.model, config.init = tune.model, tune.init
    config.optimizer.lr = 1e-3
    config.evals.val.every = 20.0
    return config
