"""torchvision's image ViT."""

from functools import partial

import torchvision

from oracles import Case


def _build(size, classes):
    return torchvision.models.vit_b_32(weights=None, image_size=size, num_classes=classes).eval()


CASES = {
    "vit_b_32": Case(
        partial(_build, 96),
        (2, 96, 96, 3),
        {"encoder.ln": "tokens"},
        live=[(1000, (1, 96, 96, 3)), (7, (3, 96, 96, 3))],
        options=dict(position_grid=(3, 3)),
        to_ours=lambda stage, y: y.numpy(),
    )
}
