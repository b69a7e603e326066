"""torchvision's Video Swin and multiscale vision transformers."""

from functools import partial

import torch
import torchvision

from oracles import Case, channels_last


def _build(name, classes, **options):
    return getattr(torchvision.models.video, name)(weights=None, num_classes=classes, **options).eval()


def _as_ours(stage, x):
    return x.numpy()


def _at_any_size(model, x):
    """torchvision's MViT at the size of `x`: positions of space and time interpolated as PySlowFast does; the
    relative ones it interpolates itself."""
    own = model.pos_encoding
    size, spatial, temporal = (own.temporal_size, *own.spatial_size), own.spatial_pos, own.temporal_pos
    new = model.conv_proj(x).shape[2:]
    own.temporal_size, own.spatial_size = new[0], tuple(new[1:])
    if spatial is not None and tuple(new) != size:
        grid = (temporal[:, None] + spatial[None]).reshape(1, *size, -1).permute(0, 4, 1, 2, 3)
        grid = torch.nn.functional.interpolate(grid, tuple(new), mode="trilinear")
        # It adds a table of space to one of time: all in the first, nothing in the second.
        grid = grid.flatten(2).squeeze(0).T.contiguous()
        own.spatial_pos, own.temporal_pos = torch.nn.Parameter(grid), torch.nn.Parameter(0 * grid[:1])
        own.temporal_size = 1
    try:
        return _forward(model, x, tuple(new))
    finally:
        own.temporal_size, own.spatial_size = size[0], size[1:]
        own.spatial_pos, own.temporal_pos = spatial, temporal


def _forward(model, x, size):
    x = model.pos_encoding(model.conv_proj(x).flatten(2).transpose(1, 2))
    for block in model.blocks:
        x, size = block(x, size)
    return model.head(model.norm(x)[:, 0])


def _mvit_to_ours(stage, x):
    return channels_last(x) if stage == "stem" else x[0].numpy()


def _mvit(name):
    ends = {"blocks.0": "stage1", "blocks.2": "stage2", "blocks.13": "stage3", "blocks.15": "stage4"}
    return Case(
        partial(_build, name),
        (1, 6, 60, 84, 3),
        {"conv_proj": "stem", **ends},
        [
            (400, (1, 16, 224, 224, 3)),
            (11, (2, 8, 64, 100, 3)),
            (3, (1, 20, 97, 71, 3)),
            (101, (1, 1, 32, 32, 3)),
        ],
        call=_at_any_size,
        to_ours=_mvit_to_ours,
    )


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
    "mvit_v1_b_16x4": _mvit("mvit_v1_b"),
    "mvit_v2_s_16x4": _mvit("mvit_v2_s"),
}
