"""EfficientNet-Lite of efficientnet_lite_pytorch."""

from efficientnet_lite_pytorch import EfficientNet

from oracles import Case

# Odd sizes show on which side TensorFlow's padding lies.
IMAGES = [(1000, (2, 224, 224, 3)), (10, (1, 97, 131, 3)), (3, (3, 33, 65, 3)), (400, (1, 65, 64, 3))]
LAST_BLOCKS = (0, 2, 4, 7, 10, 14, 15)


def _build(classes):
    # Without an image size, the padding is computed for each input.
    return EfficientNet.from_name("efficientnet-lite0", num_classes=classes, image_size=None).eval()


CASES = {
    "efficientnet_lite0": Case(
        _build,
        (2, 96, 90, 3),
        {f"_blocks.{at}": f"stage{i}" for i, at in enumerate(LAST_BLOCKS, 1)},
        IMAGES,
        package="efficientnet-lite-pytorch",
    )
}
