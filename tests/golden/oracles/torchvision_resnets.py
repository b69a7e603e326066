"""torchvision's ResNets, of images and of clips."""

from functools import partial

import torchvision

from oracles import Case

# Sizes that divide by nothing show a padding or stride that is off by one.
IMAGES = [(1000, (2, 224, 224, 3)), (10, (1, 97, 131, 3)), (3, (3, 33, 65, 3)), (400, (1, 65, 64, 3))]
CLIPS = [
    (400, (1, 16, 112, 112, 3)),
    (11, (2, 5, 57, 49, 3)),
    (3, (1, 7, 33, 71, 3)),
    (101, (1, 1, 64, 64, 3)),
]
LAYERS = {f"layer{i}": f"stage{i}" for i in range(1, 5)} | {"avgpool": "pre_logits"}


def _build(models, name, classes):
    return getattr(models, name)(weights=None, num_classes=classes).eval()


CASES = {
    name: Case(
        partial(_build, torchvision.models, name), (2, 64, 64, 3), {"maxpool": "stem", **LAYERS}, IMAGES
    )
    for name in ("resnet18", "resnet50")
} | {
    name: Case(
        partial(_build, torchvision.models.video, name), (1, 8, 56, 56, 3), {"stem": "stem", **LAYERS}, CLIPS
    )
    for name in ("r3d_18", "mc3_18", "r2plus1d_18")
}
