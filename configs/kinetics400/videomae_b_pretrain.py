"""VideoMAE ViT-B: masked pretraining on Kinetics-400 without labels, arXiv:2203.12602, table 7.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_b_pretrain.py --workdir runs/mae_b

The authors' script: AdamW (0.9, 0.95), learning rate 1.5e-4 x batch / 256 = 1.2e-3, weight decay 0.05, 40
epochs of warmup, cosine to 1e-5 (before scaling), tube masks of 90 %, multi-scale crops, targets normalized.
Clips are flipped, which the released code does not do.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md) (labels are used
only by the kNN probe); about 240,000 training videos are assumed.
Effective batch: 2048 clips = 64 devices x 32 clips x 1 accumulation step x 1 clip per video.
Views: none; 1,000 videos of each split are evaluated with a kNN probe every 20 epochs.
Hardware: 64 GPUs in the authors' script; hours are not measured here.
Expected: after fine-tuning (videomae_b_finetune.py) 81.5 / 95.1 (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_b_pretrain.py --topology v5e:16x16 --config.model.options.scan=True
  vidjax plan configs/kinetics400/videomae_b_pretrain.py --topology v6e:8x8 --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg, pretraining_evals


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    args = parse_arg(arg)
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 2048
    config.epochs = 1600.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics400", classes=400),
        train_split="train",
        eval_split="val",
        frames=16,
        stride=4.0,
        target_fps=30.0,
        size=224,
        short_side=224,
        crop="multi_scale",
        flip=True,
    )

    config.model = dict(name="videomae_b_pretrain", dtype="bfloat16", options=dict(encoder_norm=True))

    config.task = dict(name="masked_autoencoding")

    config.optimizer = dict(name="adamw", lr=1.5e-4, lr_batch=256, b2=0.95, weight_decay=0.05)

    config.schedule = dict(name="cosine", warmup_epochs=40.0, warmup_lr=0.007, end_lr=0.067)

    config.evals = pretraining_evals(every=20.0)
    config.checkpoint = dict(best="knn", every_epochs=5.0)
    config.log_every = 50
    config.expected = dict(top1=81.5, source="the authors' model zoo, after fine-tuning")
    return config
