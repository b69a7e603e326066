"""torchvision's VGG and MobileNetV2."""

import torchvision

from oracles import Case

IMAGES = [(1000, (2, 224, 224, 3)), (10, (1, 97, 131, 3)), (3, (3, 33, 65, 3)), (400, (1, 65, 64, 3))]


def _build(name):
    kwargs = {"init_weights": False} if name.startswith("vgg") else {}
    return lambda classes: getattr(torchvision.models, name)(num_classes=classes, **kwargs).eval()


_POOLS = {"vgg16": (4, 9, 16, 23, 30), "vgg16_bn": (6, 13, 23, 33, 43)}
CASES = {
    name: Case(
        _build(name),
        (2, 64, 64, 3),
        {f"features.{at}": f"pool{i}" for i, at in enumerate(pools, 1)}
        | {"classifier.1": "fc6", "classifier.4": "fc7"},
        IMAGES,
    )
    for name, pools in _POOLS.items()
} | {
    "mobilenet_v2": Case(
        _build("mobilenet_v2"),
        (2, 96, 96, 3),
        {"features.0": "stem"}
        | {f"features.{at}": f"stage{i}" for i, at in enumerate((1, 3, 6, 10, 13, 16, 17), 1)},
        IMAGES,
    )
}
