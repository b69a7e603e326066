"""MoViNets from scratch on Kinetics-600, arXiv:2103.11511, in the numbers of TensorFlow's Model Garden.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics600/movinet.py:model=a0_stream --workdir runs/m

RMSProp: learning rate 1.8 with a half-cosine schedule to zero after a linear warmup, mean of squares and
momentum with decay 0.9, epsilon 1 under the root, every tensor's gradient clipped to a norm of 1; L2
weight decay 3e-5, label smoothing 0.1, drop path 0.2, dropout 0.5 (a0_base, a0_stream and a1_stream: 0.2).
bfloat16.

Data: a folder kinetics600 under VIDJAX_DATA with the published lists (docs/datasets.md). The authors train
for 85,785 updates, of which 2,145 are the warmup: 240 and 6 epochs of the 366,016 videos assumed here.
Effective batch: 1024 clips = 128 devices x 8 clips x 1 accumulation step x 1 clip per video. The learning
rate does not follow the batch. BatchNorm: statistics of all 1024 clips. Clips, at 25 fps: A0 to A2 50 frames,
every fifth one, A3 64 of every second, A4 32 of every third, A5 32 of every second; crops of 172 (A0, A1),
224, 256, 290 and 320 pixels of 8 to 100 % of the frame, as wide as half to twice their height, randomly
flipped. AutoAugment (policy v0) for the base models, a4_stream and a5_stream.
Views: 1 clip x 1 crop that cover the ten seconds: 50 frames for A0 to A2, 120, 80 and 120 for A3 to A5, of
frames whose shorter side is 192, 192, 256, 288, 320 and 368.
Deviations: the authors' clips' stride varies by one (but in streams up to A3); they evaluate a5_stream on 115
frames, and train streams with 3D kernels in the place of (2+1)D ones.
Hardware: a TPU slice (the authors' configs are named for one of 8x8); hours are not published, nor measured
here.
Expected, top-1 base / stream: A0 72.28 / 72.05, A1 76.69 / 76.45, A2 78.62 / 78.40, A3 81.79 / 80.09, A4
83.48 / 81.49, A5 84.27 / 82.37 (Model Garden).
"""

from ml_collections import ConfigDict

from vidjax import spec
from vidjax.config import parse_arg

# Frames of a training clip where they are fewer than in testing, and the shorter side in testing.
FRAMES = {"a3": 64, "a4": 32, "a5": 32}
SHORT_SIDE = {"a0": 192, "a1": 192, "a2": 256, "a3": 288, "a4": 320, "a5": 368}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", and "model=NAME": a0_base to a5_base, a0_stream to a5_stream."""
    args = parse_arg(arg, model="a0_base")
    published = spec(f"movinet_{args.model}")
    size = args.model[:2]
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 1024
    config.epochs = 240.0

    config.data = dict(
        name="kinetics",
        options=dict(path="kinetics600", classes=600),
        train_split="train",
        eval_split="val",
        frames=FRAMES.get(size, published.input_shape[0]),
        stride=float(published.stride),
        target_fps=float(published.fps),
        size=published.input_shape[1],
        short_side=SHORT_SIDE[size],
        crop="random_resized",
        scale=(0.08, 1.0),
        ratio=(0.5, 2.0),
        flip=True,
        auto_augment="v0" if args.model.endswith("base") or size in ("a4", "a5") else None,
    )

    dropout = 0.2 if args.model in ("a0_base", "a0_stream", "a1_stream") else 0.5
    config.model = dict(name=published.name, dtype="bfloat16", options=dict(dropout=dropout, drop_path=0.2))

    config.task = dict(name="classification", label_smoothing=0.1)

    config.optimizer = dict(
        name="rmsprop", lr=1.8, b2=0.9, momentum=0.9, eps=1.0, weight_decay=3e-5, clip_each=1.0
    )

    config.schedule = dict(name="cosine", warmup_epochs=6.0)

    config.evals = dict(
        val=dict(type="metrics", every=5.0, clips=1, crops=1, frames=published.input_shape[0], batch=64)
    )
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 100

    config.expected = dict(top1=published.results[0].top1, source="TensorFlow Model Garden")
    return config
