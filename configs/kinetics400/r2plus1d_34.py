"""R(2+1)D-34 on 32 frames from scratch on Kinetics-400, arXiv:1711.11248, sections 4.1 and 4.4.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/r2plus1d_34.py --workdir runs/r2plus1d_34

Data as in slow_r50.py, about 240,000 training videos. The paper's epoch is a million clips, 4.17 of ours: 45
of them, warmup over the first 10, then a tenth of the learning rate after every 10. Learning rate 0.01 for
the 32 clips of a GPU, linear in the batch (`lr_batch`); the paper does not give the number of GPUs. Here 256
clips = 8 GPUs x 32 x 1 accumulation step, learning rate 0.08, BatchNorm on 32 clips. Frames of 128x171
pixels, crop 112. Views: 10 clips x 1 crop, scores averaged.
Hardware and hours: not measured.
Expected: 72.0 / 90.0 (table 4, RGB from scratch).
"""

from ml_collections import ConfigDict

from configs.kinetics400 import r2plus1d_18

EPOCH = 1e6 / 240e3  # the paper's, in ours


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    config = r2plus1d_18.get_config(",".join(filter(None, (arg, "model=r2plus1d_34"))))
    config.batch = 256
    config.epochs = 45 * EPOCH
    config.data.update(frames=32, target_fps=None)
    config.model.options.bn_groups = 8
    config.optimizer.update(lr=0.01, lr_batch=32)
    config.schedule.update(
        warmup_epochs=10 * EPOCH, milestones=tuple(e * EPOCH for e in (20, 30, 40)), warmup_lr=0.1
    )
    config.evals.val.clips = 10
    config.expected.source = "arXiv:1711.11248, table 4"
    return config
