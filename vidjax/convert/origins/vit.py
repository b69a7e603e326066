"""Rules for the image ViT of torchvision and timm, and for VideoMAE of its authors and of transformers.

transformers 5 stores the q and v biases in the linear layers ("transformers"); most files on its hub are
older and store them separately ("transformers_4").
"""

from collections.abc import Mapping

import numpy as np

from vidjax.convert.engine import CHANNELS_LAST, Rules, Transform, chain, linear, rule
from vidjax.convert.preprocessing import declare
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD

# Fuses q, k and v, each [D, D], to [3 D, D].
_FUSE = Transform(lambda xs: (np.concatenate(xs),), lambda xs: tuple(np.split(xs[0], 3)))


def _norm(source: str, ours: str) -> Rules:
    return (rule(f"{source}.weight", f"params/{ours}/scale"), rule(f"{source}.bias", f"params/{ours}/bias"))


def _block(source: str, parts: Mapping[str, str], block: str = "block{i}") -> Rules:
    rules = []
    for theirs, ours in parts.items():
        kind = _norm if ours.startswith("norm") else linear
        rules += kind(f"{source}.{theirs}", f"{block}/{ours}")
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
_HF_PARTS = {
    "layernorm_before": "norm1",
    "attention.output.dense": "attn/proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp/fc1",
    "output.dense": "mlp/fc2",
}


def _transformers_layers(layer: str, block: str, q_bias: str, v_bias: str) -> Rules:
    qkv = tuple(f"{layer}.attention.attention.{n}.weight" for n in ("query", "key", "value"))
    return (
        *_block(layer, _HF_PARTS, block),
        rule(qkv, f"params/{block}/attn/qkv/kernel", chain(_FUSE, CHANNELS_LAST)),
        rule(f"{layer}.attention.attention.{q_bias}", f"params/{block}/attn/q_bias"),
        rule(f"{layer}.attention.attention.{v_bias}", f"params/{block}/attn/v_bias"),
    )


def _videomae_transformers(*biases: str) -> Rules:
    return (
        *linear("videomae.embeddings.patch_embeddings.projection", "patch_embed"),
        *_transformers_layers("videomae.encoder.layer.{i}", "block{i}", *biases),
        *_norm("fc_norm", "fc_norm"),
        *linear("classifier", "head"),
    )


def _pretraining_transformers(*biases: str) -> Rules:
    return (
        *linear("videomae.embeddings.patch_embeddings.projection", "patch_embed"),
        *_transformers_layers("videomae.encoder.layer.{i}", "block{i}", *biases),
        *_norm("videomae.layernorm", "norm"),
        *linear("encoder_to_decoder", "decoder_embed", bias=False),
        rule("mask_token", "params/mask_token"),
        *_transformers_layers("decoder.decoder_layers.{i}", "decoder_block{i}", *biases),
        *_norm("decoder.norm", "decoder_norm"),
        *linear("decoder.head", "decoder_pred"),
    )


def _pretraining_authors(layer: str, block: str) -> Rules:
    return (
        *_block(layer, _TIMM_PARTS, block),
        *linear(f"{layer}.attn.qkv", f"{block}/attn/qkv", bias=False),
        rule(f"{layer}.attn.{{part:[qv]}}_bias", f"params/{block}/attn/{{part:[qv]}}_bias"),
    )


_PRETRAINING_AUTHORS = (
    *linear("encoder.patch_embed.proj", "patch_embed"),
    *_pretraining_authors("encoder.blocks.{i}", "block{i}"),
    *_norm("encoder.norm", "norm"),
    *linear("encoder_to_decoder", "decoder_embed", bias=False),
    rule("mask_token", "params/mask_token"),
    *_pretraining_authors("decoder.blocks.{i}", "decoder_block{i}"),
    *_norm("decoder.norm", "decoder_norm"),
    *linear("decoder.head", "decoder_pred"),
)


_VIDEOMAE = ("videomae_s", "videomae_b", "videomae_l", "videomae_h", "videomae_v2_g")
TIMM = dict.fromkeys(("vit_s_16", "vit_b_16", "vit_b_32", "vit_l_16"), _VIT_TIMM)
TORCHVISION = dict.fromkeys(("vit_b_16", "vit_b_32", "vit_l_16"), _VIT_TORCHVISION)
_PRETRAINING = tuple(f"videomae_{v}_pretrain" for v in ("s", "b", "l", "h", "v2_b", "v2_g"))


def _videomae(classifier: Rules, pretraining: Rules) -> dict[str, Rules]:
    return dict.fromkeys(_VIDEOMAE, classifier) | dict.fromkeys(_PRETRAINING, pretraining)


AUTHORS = _videomae(_VIDEOMAE_AUTHORS, _PRETRAINING_AUTHORS)
_NEW, _OLD = ("query.bias", "value.bias"), ("q_bias", "v_bias")
TRANSFORMERS = _videomae(_videomae_transformers(*_NEW), _pretraining_transformers(*_NEW))
TRANSFORMERS_4 = _videomae(_videomae_transformers(*_OLD), _pretraining_transformers(*_OLD))

_IMAGENET = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
declare(
    "torchvision",
    TORCHVISION,
    source="torchvision/models/vision_transformer.py, IMAGENET1K_V1 (vit_l_16 resizes to 242)",
    short_side=256,
    resize="pil",
    **_IMAGENET,
)
declare(
    "timm",
    TIMM,
    source="timm/models/vision_transformer.py, _cfg",
    unverified="tags with other statistics, such as mae and clip; the resize is bicubic there",
    short_side=248,
    resize="pil",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
_ORIGINS = {"videomae": AUTHORS, "transformers": TRANSFORMERS, "transformers_4": TRANSFORMERS_4}
for _origin, _name in ((o, n) for o, rules in _ORIGINS.items() for n in rules):
    _views = {} if _name in _PRETRAINING else dict(clips=5, crops=3, ssv2=dict(sampling="uniform", clips=2))
    declare(
        _origin,
        _name,
        source="VideoMAE, kinetics.py, ssv2.py and scripts/*/*/finetune.sh; VideoMAEv2, scripts/finetune",
        stride=4,
        short="hold",
        short_side=224,
        resize="opencv",
        **_IMAGENET,
        **_views,
    )
