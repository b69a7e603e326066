"""Rules for VTN in its authors' PySlowFast fork: timm's ViT, transformers' Longformer and an MLP head."""

import dataclasses

import numpy as np

from vidjax.convert.engine import CHANNELS_LAST, Dropped, Rules, Transform, chain, linear, rule
from vidjax.convert.origins import vit
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish

_KEYS = ("query", "key", "value")
_LAYER = "temporal_encoder.encoder.layer.{i}"
_EMBED = "temporal_encoder.embeddings"


def _norm(source: str, ours: str) -> Rules:
    return (rule(f"{source}.weight", f"params/{ours}/scale"), rule(f"{source}.bias", f"params/{ours}/bias"))


def _fused(names: tuple[str, ...], ours: str) -> Rules:
    """Returns rules that fuse n linear layers [D, D] into one with n D outputs."""
    fuse = Transform(lambda xs: (np.concatenate(xs),), lambda xs: tuple(np.split(xs[0], len(names))))
    linears = tuple(f"{_LAYER}.attention.self.{n}" for n in names)
    weights, biases = (tuple(f"{n}.{kind}" for n in linears) for kind in ("weight", "bias"))
    ours = f"params/block{{i}}/attn/{ours}"
    return (
        rule(weights, f"{ours}/kernel", chain(fuse, CHANNELS_LAST)),
        rule(biases, f"{ours}/bias", fuse),
    )


def _in_trunk(rules: Rules) -> Rules:
    return tuple(
        dataclasses.replace(
            r,
            source=tuple(f"backbone.{s}" for s in r.source),
            ours=tuple(o.replace("params/", "params/trunk/", 1) for o in r.ours),
        )
        for r in rules
        if not r.ours[0].startswith("params/head/")
    )


_RULES = (
    *_in_trunk(vit.TIMM["vit_b_16"]),
    rule("cls_token", "params/cls_token"),
    rule(f"{_EMBED}.position_embeddings.weight", "params/pos_embed"),
    rule(f"{_EMBED}.token_type_embeddings.weight", "params/type_embed"),
    Dropped(f"{_EMBED}.position_ids", "params/pos_embed", np.arange(288)[None]),
    *_norm(f"{_EMBED}.LayerNorm", "embed_norm"),
    *_fused(_KEYS, "qkv"),
    *linear(f"{_LAYER}.attention.self.query_global", "block{i}/attn/global_q"),
    *_fused(("key_global", "value_global"), "global_kv"),
    *linear(f"{_LAYER}.attention.output.dense", "block{i}/attn/proj"),
    *_norm(f"{_LAYER}.attention.output.LayerNorm", "block{i}/norm1"),
    *linear(f"{_LAYER}.intermediate.dense", "block{i}/mlp/fc1"),
    *linear(f"{_LAYER}.output.dense", "block{i}/mlp/fc2"),
    *_norm(f"{_LAYER}.output.LayerNorm", "block{i}/norm2"),
    *_norm("mlp_head.0", "head_norm"),
    *linear("mlp_head.1", "head_fc"),
    *linear("mlp_head.4", "head"),
)
AUTHORS = {"vtn_vit_b_16": _RULES}

declare(
    "vtn",
    AUTHORS,
    source="github.com/bomri/SlowFast, configs/Kinetics/VIT_B_VTN.yaml and slowfast/datasets/*.py",
    sampling="uniform",
    short_side=256,
    resize="pyslowfast",
    clips=1,
    crops=1,
    mean=(0.45,) * 3,
    std=(0.225,) * 3,
)

publish(
    "vtn",
    "vtn_vit_b_16",
    "https://researchpublic.blob.core.windows.net/vtn/VTN_VIT_B_KINETICS.pyth",
    "Kinetics-400",
    77.72,
    93.24,
    licence="Apache-2.0",
    source="github.com/bomri/SlowFast, MODEL_ZOO.md",
)
