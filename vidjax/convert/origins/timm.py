"""Rules for timm, whose plain ResNets (no letter after the depth) have torchvision's names."""

from vidjax.convert.origins.torchvision import RESNET
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD

RULES = dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), RESNET)

declare(
    "timm",
    RULES,
    source="timm/models/resnet.py",
    unverified="the resize, which depends on the weights' tag",
    short_side=256,
    resize="pil",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)

_RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/"
for _name, _file in (
    ("resnet18", "resnet18_a1_0-d63eafa0"),
    ("resnet34", "resnet34_a1_0-46f8f793"),
    ("resnet50", "resnet50_a1_0-14fe96d1"),
    ("resnet101", "resnet101_a1_0-cdcb52a9"),
):
    publish("timm", _name, f"{_RELEASES}{_file}.pth", "ImageNet", licence="Apache-2.0")
