"""timm's image ViT."""

from functools import partial

import timm

from oracles import Case


def _build(size, classes):
    return timm.create_model("vit_small_patch16_224", img_size=size, num_classes=classes).eval()


CASES = {
    "vit_s_16": Case(
        partial(_build, 64),
        (2, 64, 64, 3),
        {"norm": "tokens"},
        live=[(1000, (1, 64, 64, 3)), (7, (3, 64, 64, 3))],
        options=dict(position_grid=(4, 4)),
        to_ours=lambda stage, y: y.numpy(),
        package="timm",
    )
}
