"""Names of the image ViT in torchvision and timm, and of VideoMAE in its authors' code and in transformers.

Since its version 5 transformers keeps the biases of q and v in the linear layers ("transformers"); most files
of its hub are older and have them beside ("transformers_4").
"""

from collections.abc import Mapping

import numpy as np

from vidjax.convert.engine import CHANNELS_LAST, Rules, Transform, chain, linear, rule

# Separate q, k and v, each [D, D], to one [3 D, D].
_FUSE = Transform(lambda xs: (np.concatenate(xs),), lambda xs: tuple(np.split(xs[0], 3)))


def _norm(source: str, ours: str) -> Rules:
    return (rule(f"{source}.weight", f"params/{ours}/scale"), rule(f"{source}.bias", f"params/{ours}/bias"))


def _block(source: str, parts: Mapping[str, str]) -> Rules:
    rules = []
    for theirs, ours in parts.items():
        kind = _norm if ours.startswith("norm") else linear
        rules += kind(f"{source}.{theirs}", f"block{{i}}/{ours}")
    return tuple(rules)


_TIMM_PARTS = {n: n.replace(".", "/") for n in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")}
_VIT_TIMM = (
    *linear("patch_embed.proj", "patch_embed"),
    rule("cls_token", "params/cls_token"),
    rule("pos_embed", "params/pos_embed"),
    *_block("blocks.{i}", {**_TIMM_PARTS, "attn.qkv": "attn/qkv"}),
    *_norm("norm", "norm"),
    *linear("head", "head"),
)
_LAYER = "encoder.layers.encoder_layer_{i}"
_VIT_TORCHVISION = (
    *linear("conv_proj", "patch_embed"),
    rule("class_token", "params/cls_token"),
    rule("encoder.pos_embedding", "params/pos_embed"),
    *_block(
        _LAYER,
        {
            "ln_1": "norm1",
            "self_attention.out_proj": "attn/proj",
            "ln_2": "norm2",
            "mlp.0": "mlp/fc1",
            "mlp.3": "mlp/fc2",
        },
    ),
    rule(f"{_LAYER}.self_attention.in_proj_weight", "params/block{i}/attn/qkv/kernel", CHANNELS_LAST),
    rule(f"{_LAYER}.self_attention.in_proj_bias", "params/block{i}/attn/qkv/bias"),
    *_norm("encoder.ln", "norm"),
    *linear("heads.head", "head"),
)

_VIDEOMAE_AUTHORS = (
    *linear("patch_embed.proj", "patch_embed"),
    *_block("blocks.{i}", _TIMM_PARTS),
    *linear("blocks.{i}.attn.qkv", "block{i}/attn/qkv", bias=False),
    rule("blocks.{i}.attn.{part:[qv]}_bias", "params/block{i}/attn/{part:[qv]}_bias"),
    *_norm("fc_norm", "fc_norm"),
    *linear("head", "head"),
)
_HF_LAYER = "videomae.encoder.layer.{i}"
_HF_QKV = tuple(f"{_HF_LAYER}.attention.attention.{n}.weight" for n in ("query", "key", "value"))


def _videomae_transformers(q_bias: str, v_bias: str) -> Rules:
    return (
        *linear("videomae.embeddings.patch_embeddings.projection", "patch_embed"),
        *_block(
            _HF_LAYER,
            {
                "layernorm_before": "norm1",
                "attention.output.dense": "attn/proj",
                "layernorm_after": "norm2",
                "intermediate.dense": "mlp/fc1",
                "output.dense": "mlp/fc2",
            },
        ),
        rule(_HF_QKV, "params/block{i}/attn/qkv/kernel", chain(_FUSE, CHANNELS_LAST)),
        rule(f"{_HF_LAYER}.attention.attention.{q_bias}", "params/block{i}/attn/q_bias"),
        rule(f"{_HF_LAYER}.attention.attention.{v_bias}", "params/block{i}/attn/v_bias"),
        *_norm("fc_norm", "fc_norm"),
        *linear("classifier", "head"),
    )


_VIDEOMAE = ("videomae_s", "videomae_b", "videomae_l", "videomae_h", "videomae_v2_g")
TIMM = dict.fromkeys(("vit_s_16", "vit_b_16", "vit_b_32", "vit_l_16"), _VIT_TIMM)
TORCHVISION = dict.fromkeys(("vit_b_16", "vit_b_32", "vit_l_16"), _VIT_TORCHVISION)
AUTHORS = dict.fromkeys(_VIDEOMAE, _VIDEOMAE_AUTHORS)
TRANSFORMERS = dict.fromkeys(_VIDEOMAE, _videomae_transformers("query.bias", "value.bias"))
TRANSFORMERS_4 = dict.fromkeys(_VIDEOMAE, _videomae_transformers("q_bias", "v_bias"))
