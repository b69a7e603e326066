"""VideoMAE's classifier in transformers, in the order (B, T, C, H, W)."""

from functools import partial

import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification
from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

from oracles import Case


def _build(fields, classes):
    return VideoMAEForVideoClassification(VideoMAEConfig(num_labels=classes, **fields)).eval()


def _call(model, video):
    """Positions and the expected size are set to the clip's: the model has neither as weights."""
    embeddings = model.videomae.embeddings
    patches = embeddings.patch_embeddings
    _, frames, _, *size = video.shape
    patches.image_size = tuple(size)
    count = (frames // patches.tubelet_size) * (size[0] // 16) * (size[1] // 16)
    if embeddings.position_embeddings.shape[1] != count:
        embeddings.position_embeddings = get_sinusoid_encoding_table(count, model.config.hidden_size)
    return model(video).logits


CASES = {
    name: Case(
        partial(
            _build, dict(hidden_size=64 * heads, num_attention_heads=heads, intermediate_size=256 * heads)
        ),
        (2, 6, 48, 64, 3),
        {"videomae.encoder.layer.11": "tokens", "fc_norm": "pre_logits"},
        live=[(400, (1, 16, 224, 224, 3)), (11, (2, 7, 83, 57, 3)), (3, (1, 2, 16, 240, 3))],
        options=dict(epsilon=1e-12, head_epsilon=1e-5),
        to_input=lambda x: torch.from_numpy(x.transpose(0, 1, 4, 2, 3).copy()),
        call=_call,
        to_ours=lambda stage, y: (y[0] if isinstance(y, tuple) else y).numpy(),
        package="transformers",
    )
    for name, heads in (("videomae_s", 6), ("videomae_b", 12))
}
