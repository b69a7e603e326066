"""Channel-separated networks from scratch on Kinetics-400, arXiv:1904.02811.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/csn.py:model=ip_152 --workdir runs/csn

ir_50 and ir_101: pytorchvideo's recipe for CSN 32x2 R101, which is that of slow_r50.py in all numbers: SGD,
64 clips = 8 devices x 8, learning rate 0.1 for 64 clips, 196 epochs with a half-cosine schedule and 34 warmup
epochs, weight decay 1e-4, dropout 0.5, BatchNorm's statistics of 200 batches for evaluation.
ir_152 and ip_152: the paper's recipe. Its epoch is a million clips, 4.17 of ours: 45 of them, the first 10 a
warmup, then a half-cosine schedule. 512 clips = 64 devices x 8 clips x 1 accumulation step, learning rate
0.01 for the 8 clips of a device, which is 0.64 for 512, linear in the batch; Nesterov momentum of 0.9 and no
dropout as in the authors' trainer (VMZ). Not verified against the paper: a weight decay of 1e-4, and a warmup
from a tenth of the learning rate.

Data: about 240,000 training videos. Clips: 32 frames, every second one at 30 fps; crops of 224 pixels of
frames whose shorter side is 256 to 320 (for the 152 not verified).
BatchNorm: statistics of a device's 8 clips in training (`bn_groups`).
Views: 10 clips x 3 crops of 256 pixels, scores averaged.
Hardware: 8 GPUs for 64 clips, 64 for 512; hours are not published, nor measured here.
Expected, top-1 / top-5: ir_101 77.0 / 92.9 (pytorchvideo's model zoo); ir_152 76.5 / 92.1, ip_152 77.8 / 92.8
(VMZ's). None is published for ir_50.
"""

from ml_collections import ConfigDict

from configs.kinetics400.r2plus1d_34 import EPOCH
from configs.kinetics400.slow_r50 import recipe
from vidjax import spec
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke", and "model=NAME": ir_50, ir_101, ir_152 or ip_152."""
    args = parse_arg(arg, model="ir_101")
    published = spec(f"csn_{args.model}")
    frames, top1 = published.input_shape[0], None
    if published.results:
        top1 = published.results[0].top1
    config = recipe(args, published.name, frames, published.stride, top1)
    if args.model.endswith("152"):
        config.batch = 512
        config.epochs = 45 * EPOCH
        config.model.options.update(bn_groups=64, dropout=0.0)
        config.optimizer.update(lr=0.01, lr_batch=8)
        config.schedule.warmup_epochs = 10 * EPOCH
        config.model.precise_bn_batches = 0
        config.expected.source = "VMZ model zoo"
    return config
