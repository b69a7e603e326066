"""A small masked autoencoder, pretrained on the embedded motions without labels.

  vidjax train --config configs/synthetic_motion/videomae_pretrain.py --workdir runs/motion_mae

VideoMAE (arXiv:2203.12602), adapted to these clips: one of four pairs of frames is visible and the others are
predicted, so that the model has to learn motion; targets are plain pixels, since most patches hold nothing
but smooth noise. 8 frames of 32x32 in tubelets of 2x8x8: 64 tokens, 16 of them visible.
Hardware: two CPU cores, three minutes. Batch 32 = one device x 16 videos x 2 clips of each, no accumulation,
3,000 updates; lr 3e-3 at this batch, not scaled.

Planned (docs/slices.md):

  vidjax plan configs/synthetic_motion/videomae_pretrain.py --topology v5e:2x2 --quick
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg, pretraining_evals


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", or "model=NAME"."""
    args = parse_arg(arg, model="videomae_s_pretrain")
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 32
    config.epochs = 10.0

    config.data = dict(
        name="synthetic_motion",
        options=dict(size=32, train=4800, val=240, test=240),
        frames=8,
        stride=2.0,
        size=32,
        short_side=32,
        crop="center",
        flip=False,
        repeats=2,
        cache=True,
    )

    config.model = dict(
        name=args.model,
        options=dict(
            width=64,
            depth=4,
            heads=4,
            mlp_width=256,
            patch=(2, 8, 8),
            decoder_width=64,
            decoder_depth=1,
            decoder_heads=4,
            mask="frame",
            mask_ratio=0.75,
            encoder_norm=True,
        ),
    )

    config.task = dict(name="masked_autoencoding", normalize_targets=False)

    config.optimizer = dict(name="adamw", lr=3e-3, b2=0.95, weight_decay=0.05, clip_norm=1.0)

    config.schedule = dict(name="cosine", warmup_epochs=0.5)

    config.evals = pretraining_evals(every=5.0, videos=480)
    config.checkpoint = dict(best="knn", every_epochs=5.0)
    config.log_every = 200
    return config
