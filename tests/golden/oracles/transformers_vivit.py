"""Hugging Face's ViViT (model 1), small: three layers of 192 channels, as wide as its heads ask for."""

from functools import partial

import torch
from transformers import VivitConfig, VivitForVideoClassification

from oracles import Case

BASE = dict(width=768, depth=12, heads=12, mlp_width=3072)
SMALL = dict(width=192, depth=3, heads=3, mlp_width=768, frames=4, size=64)


def _build(fields, classes):
    config = VivitConfig(
        image_size=fields["size"],
        num_frames=fields["frames"],
        tubelet_size=(2, 16, 16),
        hidden_size=fields["width"],
        num_hidden_layers=fields["depth"],
        num_attention_heads=fields["heads"],
        intermediate_size=fields["mlp_width"],
        num_labels=classes,
    )
    return VivitForVideoClassification(config).eval()


CASES = {
    "vivit_b_16x2": Case(
        partial(_build, SMALL),
        (2, 4, 64, 64, 3),
        {"vivit.layernorm": "tokens"},
        [(5, (1, 4, 64, 64, 3)), (400, (3, 4, 64, 64, 3)), (1, (2, 4, 64, 64, 3))],
        options=SMALL,
        to_input=lambda x: torch.from_numpy(x.transpose(0, 1, 4, 2, 3).copy()),
        call=lambda model, x: model(x).logits,
        to_ours=lambda stage, y: y.numpy(),
        package="transformers",
        full=lambda classes, frames, size: _build(dict(BASE, frames=frames, size=size), classes),
    ),
}
