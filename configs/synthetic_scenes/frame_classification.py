"""The events at every moment of a rendered scene, from short clips.

  vidjax train --config configs/synthetic_scenes/frame_classification.py --workdir runs/scenes_frames

Hardware: two CPU cores, five minutes, after two to render the 1,000 scenes. Batch 16 on one device, no
accumulation, 1,500 updates; the learning rate is not scaled. Training clips of 8 adjacent frames (0.7 s of
48x48 pixels) are labeled with the events in their middle. Test videos are scored at 25 points, from 25 clips.
Measured once: map 0.438; random scores 0.088, a model of one frame 0.222.
"""

from ml_collections import ConfigDict

from configs.synthetic_scenes import multi_label
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "model=NAME" in its tiny preset, and "smoke"."""
    args = parse_arg(arg, model="r3d_18")
    config = multi_label.get_config("smoke" if args.smoke else "")
    config.epochs = 30.0
    config.model = dict(name=args.model, tiny=True)
    config.data.frames = 8
    config.data.stride = 1.0
    config.task = dict(name="frame_classification")
    config.evals = dict(val=dict(type="metrics", every=15.0, clips=25, crops=1))
    config.checkpoint.every_epochs = 15.0
    return config
