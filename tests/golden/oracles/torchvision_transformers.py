"""torchvision's Video Swin and multiscale vision transformers."""

from functools import partial

import torchvision

from oracles import Case


def _build(name, classes, **options):
    return getattr(torchvision.models.video, name)(weights=None, num_classes=classes, **options).eval()


def _as_ours(stage, x):
    return x.numpy()


# Whole windows; padding in every axis; windows cut short in time; in all axes.
_SWIN_CLIPS = [
    (400, (1, 16, 112, 112, 3)),
    (11, (2, 19, 65, 90, 3)),
    (3, (1, 7, 33, 71, 3)),
    (101, (1, 1, 40, 24, 3)),
]
CASES = {
    "swin3d_t": Case(
        partial(_build, "swin3d_t"),
        (1, 18, 60, 64, 3),
        {"patch_embed": "stem", **{f"features.{2 * i}": f"stage{i + 1}" for i in range(4)}},
        _SWIN_CLIPS,
        to_ours=_as_ours,
    ),
}
