"""Rules for VGG and MobileNetV2 of torchvision, and for MobileNetV2 of timm."""

from vidjax.convert.engine import Rules, batch_norm, chain, linear, reshape, rule, transpose
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD

_CONVS = (2, 2, 3, 3, 3)
# First hidden layer: PyTorch flattens [C, H, W], vidjax flattens [H, W, C].
_FC6 = chain(
    reshape((-1, 25088), (-1, 512, 7, 7)), transpose(2, 3, 1, 0), reshape((7, 7, 512, -1), (25088, -1))
)


def _vgg(norm: bool) -> Rules:
    rules, at = [], 0
    for stage, convs in enumerate(_CONVS, 1):
        for j in range(convs):
            name = f"stage{stage}_{{}}{j}" if stage > 1 or j > 0 else "stem_{}"
            rules += linear(f"features.{at}", name.format("conv"))
            if norm:
                rules += batch_norm(f"features.{at + 1}", name.format("bn"))
            at += 3 if norm else 2
        at += 1
    rules += [
        rule("classifier.0.weight", "params/fc6/kernel", _FC6),
        rule("classifier.0.bias", "params/fc6/bias"),
    ]
    return *rules, *linear("classifier.3", "fc7"), *linear("classifier.6", "head")


_BLOCKS = (1, 2, 3, 4, 3, 3, 1)


def _mobilenet_torchvision() -> Rules:
    pairs = [("features.0.{}", "stem"), ("features.18.{}", "last")]
    rules = [r for a, b in pairs for r in _unit(a.format(0), a.format(1), f"{b}_conv", f"{b}_bn")]
    at = 1
    for stage, blocks in enumerate(_BLOCKS, 1):
        for j in range(blocks):
            theirs, ours = f"features.{at}.conv", f"stage{stage}_block{j}"
            first = 1 if stage > 1 else 2  # the first stage does not expand
            for i in range(first, 3):
                unit = f"{theirs}.{i - first}"
                rules += _unit(f"{unit}.0", f"{unit}.1", f"{ours}/conv{i}", f"{ours}/bn{i}")
            last = 3 - first
            rules += _unit(f"{theirs}.{last}", f"{theirs}.{last + 1}", f"{ours}/conv3", f"{ours}/bn3")
            at += 1
    return *rules, *linear("classifier.1", "head")


def _mobilenet_timm() -> Rules:
    rules = [
        *_unit("conv_stem", "bn1", "stem_conv", "stem_bn"),
        *_unit("conv_head", "bn2", "last_conv", "last_bn"),
    ]
    for stage, blocks in enumerate(_BLOCKS, 1):
        for j in range(blocks):
            theirs, ours = f"blocks.{stage - 1}.{j}", f"stage{stage}_block{j}"
            convs = ("conv_pw", "conv_dw", "conv_pwl") if stage > 1 else ("conv_dw", "conv_pw")
            for i, conv in enumerate(convs, 1):
                at = i + 3 - len(convs)
                rules += _unit(f"{theirs}.{conv}", f"{theirs}.bn{i}", f"{ours}/conv{at}", f"{ours}/bn{at}")
    return *rules, *linear("classifier", "head")


def _unit(conv: str, norm: str, our_conv: str, our_norm: str) -> Rules:
    return *linear(conv, our_conv, bias=False), *batch_norm(norm, our_norm)


TORCHVISION = {
    "vgg16": _vgg(norm=False),
    "vgg16_bn": _vgg(norm=True),
    "mobilenet_v2": _mobilenet_torchvision(),
}
TIMM = {"mobilenet_v2": _mobilenet_timm()}

_IMAGES = dict(short_side=256, resize="pil", mean=IMAGENET_MEAN, std=IMAGENET_STD)
declare(
    "torchvision",
    TORCHVISION,
    source="torchvision/models/vgg.py and mobilenetv2.py, IMAGENET1K_V1",
    **_IMAGES,
)
declare("timm", TIMM, source="timm/models/mobilenetv3.py", unverified="all but the naming", **_IMAGES)

_HUB = "https://download.pytorch.org/models/"
for _name, _file, *_accuracy in (
    ("vgg16", "vgg16-397923af", 71.592, 90.382),
    ("vgg16_bn", "vgg16_bn-6c64b313", 73.360, 91.516),
    ("mobilenet_v2", "mobilenet_v2-b0353104", 71.878, 90.286),
):
    publish(
        "torchvision",
        _name,
        f"{_HUB}{_file}.pth",
        "ImageNet",
        *_accuracy,
        licence="BSD-3-Clause",
        source="torchvision model zoo, V1 weights",
    )
publish(
    "timm",
    "mobilenet_v2",
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
    "mobilenetv2_100_ra-b33bc2c4.pth",
    "ImageNet",
    licence="Apache-2.0",
)
