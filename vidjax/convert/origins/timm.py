"""Rules for timm, whose plain ResNets (no letter after the depth) have torchvision's names."""

from vidjax.convert.origins.torchvision import RESNET
from vidjax.convert.preprocessing import declare
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
