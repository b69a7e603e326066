"""Few labels for the embedded motions: a small ViT fine-tuned after masked pretraining, or from scratch.

  vidjax train --config configs/synthetic_motion/videomae_finetune.py --workdir runs/motion_tuned \\
      --config.init.path=runs/motion_mae
  vidjax train --config configs/synthetic_motion/videomae_finetune.py --workdir runs/motion_scratch

The encoder is that of videomae_pretrain.py, and the videos are the first `labels` of those that it saw.
Hardware: two CPU cores, a minute. Batch 16 on one device, no accumulation, 600 updates; the learning rate is
not scaled. One view per video (1 clip x 1 crop), 240 test videos.

Planned (docs/slices.md):

  vidjax plan configs/synthetic_motion/videomae_finetune.py --topology v5e:2x2 --quick
"""

from ml_collections import ConfigDict

from configs.synthetic_motion import videomae_pretrain
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "labels=N", the training videos, and "smoke"."""
    args = parse_arg(arg, labels=240)
    config = videomae_pretrain.get_config("smoke" if args.smoke else "")
    config.batch = 16
    config.epochs = 0.0
    config.steps = 600

    config.data.update(repeats=1, crop="center", options=dict(config.data.options, train=args.labels))

    encoder = ("width", "depth", "heads", "mlp_width", "patch")
    config.model = dict(
        name="videomae_s",
        options={k: config.model.options[k] for k in encoder},
    )

    config.init = dict(skip=("params/(norm|decoder|mask_token|fc_norm|head)",))

    config.task = dict(name="classification")

    config.optimizer = dict(name="adamw", lr=1e-3, weight_decay=0.05, clip_norm=1.0, ema=0.99)

    config.schedule = dict(name="cosine", warmup_epochs=2.0)

    config.evals = dict(val=dict(type="metrics", every=0.0))
    config.checkpoint = dict(every_epochs=0.0)
    config.log_every = 250
    return config
