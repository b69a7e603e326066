"""X3D from scratch on Kinetics-400, arXiv:2004.04730, in the numbers of PySlowFast's configs.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/x3d.py:model=m --workdir runs/x3d_m

The recipe of slow_r50.py (SGD, a half-cosine schedule, dropout 0.5) with a weight decay of 5e-5, none on
norms, and 300 epochs (L: 256), the first 35 of them a warmup from a learning rate of 0.01; about 240,000
training videos. Deviation: PySlowFast decays biases as well.
Effective batch: 128 clips = 8 devices x 16 clips x 1 accumulation step x 1 clip per video (L: 64 = 8 x 8).
Learning rate: 0.1 for 128 clips, linear in the batch, so 0.05 for L.
BatchNorm: statistics of a device's clips in training (`bn_groups`), of 200 batches for evaluation.
Clips: at 30 fps XS 4 frames, every twelfth one, S 13 and every sixth, M and L 16 and every fifth; crops of
160 (XS, S), 224 (M) and 312 (L) pixels of frames whose shorter side is 182 to 228, 256 to 320, 356 to 446.
Views: 10 clips x 3 crops of 182, 182, 256 and 356 pixels, scores averaged.
Hardware: 8 GPUs; hours are not published, nor measured here.
Expected, top-1: XS 69.5, S 73.5, M 76.2, L 77.5 (PySlowFast's model zoo).
"""

from ml_collections import ConfigDict

from configs.kinetics400.slow_r50 import recipe
from vidjax import spec
from vidjax.config import parse_arg

SHORT_SIDES = {160: (182, 228), 224: (256, 320), 312: (356, 446)}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", and "model=NAME": xs, s, m or l."""
    args = parse_arg(arg, model="m")
    name, large = f"x3d_{args.model}", args.model == "l"
    published = spec(name)
    frames, size, *_ = published.input_shape
    sides = SHORT_SIDES[size]
    config = recipe(
        args,
        name,
        frames,
        published.stride,
        published.results[0].top1,
        "PySlowFast model zoo",
        zero_init=True,
    )
    config.batch = 64 if large else 128
    config.epochs = 256.0 if large else 300.0
    config.data.update(size=size, short_side=sides[0], short_side_range=sides)
    config.optimizer.update(lr=0.1, lr_batch=128, weight_decay=5e-5)
    config.schedule.update(warmup_epochs=35.0, warmup_lr=0.2 if large else 0.1)
    config.evals.val.size = sides[0]
    return config
