"""Hugging Face's TimeSformer, small: three layers of 192 channels, as wide as its heads ask for."""

from functools import partial

import torch
from transformers import TimesformerConfig, TimesformerForVideoClassification

from oracles import Case

BASE = dict(width=768, depth=12, heads=12, mlp_width=3072)
SMALL = dict(width=192, depth=3, heads=3, mlp_width=768, frames=4, size=64)


def _build(kind, fields, classes):
    config = TimesformerConfig(
        image_size=fields["size"],
        num_frames=fields["frames"],
        hidden_size=fields["width"],
        num_hidden_layers=fields["depth"],
        num_attention_heads=fields["heads"],
        intermediate_size=fields["mlp_width"],
        attention_type=kind,
        num_labels=classes,
    )
    return TimesformerForVideoClassification(config).eval()


def _time_first(stage, y):
    """Its patches come place by place, ours frame by frame."""
    patches = y[:, 1:].unflatten(1, (-1, SMALL["frames"])).transpose(1, 2).flatten(1, 2)
    return torch.cat([y[:, :1], patches], 1).numpy()


def _case(kind, stages, frames=SMALL["frames"]):
    shape = (2, frames, SMALL["size"], SMALL["size"], 3)
    return Case(
        partial(_build, kind, SMALL),
        shape,
        stages,
        [(5, (1, *shape[1:])), (400, (3, *shape[1:]))],
        options=SMALL,
        to_input=lambda x: torch.from_numpy(x.transpose(0, 1, 4, 2, 3).copy()),
        call=lambda model, x: model(x).logits,
        to_ours=_time_first,
        package="transformers",
        full=lambda classes, frames, size: _build(kind, dict(BASE, frames=frames, size=size), classes),
    )


NORMED = {"timesformer.layernorm": "tokens"}
CASES = {
    "timesformer_b_8x32": _case("divided_space_time", NORMED),
    "timesformer_b_8x32_joint": _case("joint_space_time", NORMED),
    # It leaves the frames of this form apart, where the authors' code averages them.
    "timesformer_b_8x32_space": _case("space_only", {}, frames=1),
}
