"""VideoMAE ViT-B: fine-tuning on Kinetics-400, arXiv:2203.12602, table 8.

  VIDJAX_DATA=/data vidjax train --config configs/kinetics400/videomae_b_finetune.py \\
      --workdir runs/mae_b_k400 --config.init.path=runs/mae_b

The authors' script: AdamW, learning rate 5e-4 x videos / 256 = 7.5e-4, weight decay 0.05, layer decay 0.75,
drop path 0.1, 5 epochs of warmup, cosine, 75 epochs, mixup 0.8, cutmix 1.0, label smoothing 0.1, RandAugment
of magnitude 7, random erasing 0.25, the classifier's initial weights times 0.001. `init.path` is a run of
videomae_b_pretrain.py; what the two models do not share is named in `init.skip`.

Data: a folder kinetics400 under VIDJAX_DATA with the published lists (docs/datasets.md); about 240,000
training and 20,000 validation videos are assumed.
Effective batch: 768 clips = 64 devices x 6 videos x 2 clips of each (repeated augmentation) x 1 accumulation
step; the learning rate counts videos, so `lr_batch` is 512 clips.
Views: 5 clips x 3 crops of 224 at a shorter side of 224, scores averaged.
Hardware: 64 GPUs in the authors' script; hours are not measured here.
Expected: 81.5 / 95.1 from 1600 epochs of pretraining (the authors' model zoo).

Planned (docs/slices.md):

  vidjax plan configs/kinetics400/videomae_b_finetune.py --topology v5e:16x16 --quick \
      --config.model.options.scan=True
"""

from ml_collections import ConfigDict

from vidjax.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    """Returns the config. `arg`: "smoke"."""
    args = parse_arg(arg)
    config = ConfigDict()
    config.smoke = args.smoke
    config.seed = 0
    config.batch = 768
    config.epochs = 75.0

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
        crop="random_resized",
        scale=(0.08, 1.0),
        flip=True,
        auto_augment="rand-m7-n4-mstd0.5-inc1",
        repeats=2,
    )

    config.model = dict(name="videomae_b", dtype="bfloat16", options=dict(drop_path=0.1, head_scale=0.001))

    config.init = dict(skip=("params/(norm|decoder|mask_token|fc_norm|head)",))

    config.task = dict(name="classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0, random_erasing=0.25)

    config.optimizer = dict(name="adamw", lr=5e-4, lr_batch=512, weight_decay=0.05, layer_decay=0.75)

    config.schedule = dict(name="cosine", warmup_epochs=5.0, warmup_lr=0.001, end_lr=0.001)

    config.evals = dict(val=dict(type="metrics", every=0.0, clips=5, crops=3))
    config.checkpoint = dict(every_epochs=1.0)
    config.log_every = 50
    config.expected = dict(top1=81.5, source="the authors' model zoo")
    return config
