"""Rules for torchvision's `models.resnet*` and `models.video.{r3d_18, mc3_18, r2plus1d_18}`."""

from vidjax.convert.engine import batch_norm, linear
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, KINETICS_MEAN, KINETICS_STD

_BLOCK, _OURS = "layer{stage}.{block}", "stage{stage}_block{block}"

RESNET = (
    *linear("conv1", "stem_conv", bias=False),
    *batch_norm("bn1", "stem_bn"),
    *linear(f"{_BLOCK}.conv{{i}}", f"{_OURS}/conv{{i}}", bias=False),
    *batch_norm(f"{_BLOCK}.bn{{i}}", f"{_OURS}/bn{{i}}"),
    *linear(f"{_BLOCK}.downsample.0", f"{_OURS}/down_conv", bias=False),
    *batch_norm(f"{_BLOCK}.downsample.1", f"{_OURS}/down_bn"),
    *linear("fc", "head"),
)

VIDEO_RESNET = (
    *linear("stem.0", "stem_conv", bias=False),
    *batch_norm("stem.1", "stem_bn"),
    *linear(f"{_BLOCK}.conv{{i}}.0", f"{_OURS}/conv{{i}}", bias=False),
    *batch_norm(f"{_BLOCK}.conv{{i}}.1", f"{_OURS}/bn{{i}}"),
    *linear(f"{_BLOCK}.downsample.0", f"{_OURS}/down_conv", bias=False),
    *batch_norm(f"{_BLOCK}.downsample.1", f"{_OURS}/down_bn"),
    *linear("fc", "head"),
)

_STAGED = f"{_BLOCK}.conv{{i}}.0", f"{_OURS}/conv{{i}}"

R2PLUS1D = (
    *linear("stem.0", "stem_conv", bias=False),
    *batch_norm("stem.1", "stem_bn"),
    *linear("stem.3", "stem_time_conv", bias=False),
    *batch_norm("stem.4", "stem_time_bn"),
    *linear(f"{_STAGED[0]}.0", f"{_STAGED[1]}/space", bias=False),
    *batch_norm(f"{_STAGED[0]}.1", f"{_STAGED[1]}/bn"),
    *linear(f"{_STAGED[0]}.3", f"{_STAGED[1]}/time", bias=False),
    *batch_norm(f"{_BLOCK}.conv{{i}}.1", f"{_OURS}/bn{{i}}"),
    *linear(f"{_BLOCK}.downsample.0", f"{_OURS}/down_conv", bias=False),
    *batch_norm(f"{_BLOCK}.downsample.1", f"{_OURS}/down_bn"),
    *linear("fc", "head"),
)

RULES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), RESNET),
    **dict.fromkeys(("r3d_18", "mc3_18"), VIDEO_RESNET),
    # The last two have torchvision's names with other widths.
    **dict.fromkeys(("r2plus1d_18", "r2plus1d_18_paper", "r2plus1d_34"), R2PLUS1D),
}

_IMAGES = dict(short_side=256, resize="pil", mean=IMAGENET_MEAN, std=IMAGENET_STD)
_VIDEOS = dict(target_fps=15, stride=1, clips=5, crops=1, mean=KINETICS_MEAN, std=KINETICS_STD)
declare(
    "torchvision",
    ("resnet18", "resnet34", "resnet50", "resnet101"),
    source="torchvision/models/resnet.py, IMAGENET1K_V1 (V2 resizes to 232)",
    **_IMAGES,
)
declare(
    "torchvision",
    ("r3d_18", "mc3_18", "r2plus1d_18"),
    source="torchvision/models/video/resnet.py; references/video_classification",
    resize_to=(128, 171),
    resize="torchvision",
    **_VIDEOS,
)
declare(
    "torchvision",
    ("r2plus1d_18_paper", "r2plus1d_34"),
    source="torchvision/models/video/resnet.py",
    unverified="all: torchvision has the names of these models and no weights",
    resize_to=(128, 171),
    resize="torchvision",
    **_VIDEOS,
)

_HUB = "https://download.pytorch.org/models/"
_IMAGE_FILES = {
    "resnet18": ("resnet18-f37072fd", 69.758, 89.078),
    "resnet34": ("resnet34-b627a593", 73.314, 91.420),
    "resnet50": ("resnet50-0676ba61", 76.130, 92.862),
    "resnet101": ("resnet101-63fe2227", 77.374, 93.546),
}
_VIDEO_FILES = {
    "r3d_18": ("r3d_18-b3b3357e", 63.200, 83.479),
    "mc3_18": ("mc3_18-a90a0ba3", 63.960, 84.130),
    "r2plus1d_18": ("r2plus1d_18-91a641e6", 67.463, 86.175),
}
for _files, _dataset in ((_IMAGE_FILES, "ImageNet"), (_VIDEO_FILES, "Kinetics-400")):
    for _name, (_file, *_accuracy) in _files.items():
        publish(
            "torchvision",
            _name,
            f"{_HUB}{_file}.pth",
            _dataset,
            *_accuracy,
            licence="BSD-3-Clause",
            source="torchvision model zoo, V1 weights",
        )
# VMZ's R(2+1)D-34, converted from Caffe2.
for _frames, _file, *_accuracy in (
    (8, "r2plus1d_34_clip8_ft_kinetics_from_ig65m-0aa0550b", 74.9, 91.8),
    (32, "r2plus1d_34_clip32_ft_kinetics_from_ig65m-ade133f1", 80.0, 94.2),
):
    publish(
        "torchvision",
        "r2plus1d_34",
        f"https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/{_file}.pth",
        "Kinetics-400",
        *_accuracy,
        variant=f"ig65m_{_frames}f",
        licence="MIT, of weights under Apache-2.0",
        source="VMZ, c2/tutorials/model_zoo.md, before the conversion",
        protocol=dict(
            frames=_frames,
            target_fps=None,
            clips=10,
            options={"bn_epsilon": 1e-3},
            unverified="the stride and the resize; the views are those of arXiv:1711.11248",
        ),
    )
