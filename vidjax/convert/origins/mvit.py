"""Rules for MViT of torchvision, PySlowFast, and pytorchvideo (v1 only)."""

import numpy as np

from vidjax.convert.engine import CHANNELS_LAST, IDENTITY, Rules, Transform, chain, linear, per_array, rule
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import SSV2, drive, publish
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD

_BATCHED = per_array(lambda x: x[None], lambda x: x[0])
_JOINED = Transform(lambda xs: (np.concatenate(xs),), lambda xs: tuple(np.split(xs[0], len("qkv"))))
_BLOCK, _OURS = "blocks.{block}", "block{block}"
_POSITIONS = ("class", "spatial", "temporal")


def _norm(source: str, ours: str) -> Rules:
    return (rule(f"{source}.weight", f"params/{ours}/scale"), rule(f"{source}.bias", f"params/{ours}/bias"))


def _rules(patches: str, norm: str, head: str, proj: str, fc1: str, fc2: str) -> Rules:
    """Returns the rules that are common to all three up to single names."""
    return (
        *linear(patches, "patch_embed"),
        *_norm(f"{_BLOCK}.norm{{i}}", f"{_OURS}/norm{{i}}"),
        *linear(f"{_BLOCK}.attn.{proj}", f"{_OURS}/attn/proj"),
        *linear(f"{_BLOCK}.mlp.{fc1}", f"{_OURS}/mlp/fc1"),
        *linear(f"{_BLOCK}.mlp.{fc2}", f"{_OURS}/mlp/fc2"),
        *_norm(norm, "norm"),
        *linear(head, "head"),
    )


_FUSED = linear(f"{_BLOCK}.attn.qkv", f"{_OURS}/attn/qkv")
_APART = (
    rule(
        tuple(f"{_BLOCK}.attn.{n}.weight" for n in "qkv"),
        f"params/{_OURS}/attn/qkv/kernel",
        chain(_JOINED, CHANNELS_LAST),
    ),
    rule(tuple(f"{_BLOCK}.attn.{n}.bias" for n in "qkv"), f"params/{_OURS}/attn/qkv/bias", _JOINED),
)
_RELATIVE = (
    rule(f"{_BLOCK}.attn.rel_pos_{{axis:[thw]}}", f"params/{_OURS}/attn/rel_pos_{{axis:[thw]}}", IDENTITY),
)


def _pools(conv: str, norm: str) -> Rules:
    ours = f"{_OURS}/attn"
    return (
        rule(f"{_BLOCK}.attn.{conv}.weight", f"params/{ours}/pool_{{n:[qkv]}}/kernel", CHANNELS_LAST),
        *_norm(f"{_BLOCK}.attn.{norm}", f"{ours}/norm_{{n:[qkv]}}"),
    )


_TORCHVISION = (
    *_rules("conv_proj", "norm", "head.1", proj="project.0", fc1="0", fc2="3"),
    *_FUSED,
    *_pools("pool_{n:[qkv]}.pool", "pool_{n:[qkv]}.norm_act.0"),
    *linear(f"{_BLOCK}.project", f"{_OURS}/proj"),
    rule("pos_encoding.class_token", "params/cls_token", chain(_BATCHED, _BATCHED)),
)
_TORCHVISION_V1 = (
    *_TORCHVISION,
    rule("pos_encoding.class_pos", "params/pos_embed_class", chain(_BATCHED, _BATCHED)),
    rule("pos_encoding.spatial_pos", "params/pos_embed_spatial", _BATCHED),
    rule("pos_encoding.temporal_pos", "params/pos_embed_temporal", _BATCHED),
)


def _meta(patches: str, norm: str, head: str, positions: str) -> Rules:
    """Returns the rules that PySlowFast and pytorchvideo share."""
    return (
        *_rules(patches, norm, head, proj="proj", fc1="fc1", fc2="fc2"),
        *_pools("pool_{n:[qkv]}", "norm_{n:[qkv]}"),
        *linear(f"{_BLOCK}.proj", f"{_OURS}/proj"),
        rule(f"{positions}cls_token", "params/cls_token"),
        *(rule(f"{positions}pos_embed_{p}", f"params/pos_embed_{p}") for p in _POSITIONS),
    )


_PYSLOWFAST = (*_meta("patch_embed.proj", "norm", "head.projection", ""), *_FUSED, *_RELATIVE)
_PYTORCHVIDEO = (
    *_meta("patch_embed.patch_model", "norm_embed", "head.proj", "cls_positional_encoding."),
    *_APART,
)

_V1 = ("mvit_v1_b_16x4", "mvit_v1_b_32x3")
_V2 = ("mvit_v2_s_16x4", "mvit_v2_b_32x3", "mvit_v2_l_40x3")
TORCHVISION = dict.fromkeys(_V1, _TORCHVISION_V1) | dict.fromkeys(_V2, (*_TORCHVISION, *_RELATIVE))
PYSLOWFAST = dict.fromkeys((*_V1, *_V2), _PYSLOWFAST)
PYTORCHVIDEO = dict.fromkeys(_V1, _PYTORCHVIDEO)

_GRAY = dict(mean=(0.45,) * 3, std=(0.225,) * 3)
_SMALL, _LARGE = ("mvit_v1_b_16x4", "mvit_v1_b_32x3", "mvit_v2_b_32x3", "mvit_v2_s_16x4"), "mvit_v2_l_40x3"
declare(
    "torchvision",
    ("mvit_v1_b_16x4", "mvit_v2_s_16x4"),
    source="torchvision/models/video/mvit.py, KINETICS400_V1",
    target_fps=7.5,
    stride=1,
    short_side=256,
    resize="torchvision",
    clips=5,
    crops=1,
    **_GRAY,
)
_SSV2 = dict(
    source="PySlowFast, configs/SSv2/MVITv2_*.yaml and slowfast/datasets/ssv2.py",
    sampling="uniform",
    clips=1,
    crops=3,
)
for _origin, _names in (
    ("torchvision", ("mvit_v1_b_32x3", "mvit_v2_b_32x3")),
    ("pytorchvideo", _SMALL[:2]),
    ("pyslowfast", _SMALL),
):
    declare(
        _origin,
        _names,
        source="PySlowFast, configs/Kinetics/MVIT*.yaml, slowfast/datasets/*.py; MODEL_ZOO.md",
        unverified="all: torchvision has the names and no weights" if _origin == "torchvision" else "",
        target_fps=30,
        linspace=True,
        short="hold",
        short_side=256,
        resize="pyslowfast",
        clips=5,
        crops=1,
        ssv2=_SSV2 | dict(short_side=224),
        **_GRAY,
    )
for _origin in ("torchvision", "pyslowfast"):
    declare(
        _origin,
        _LARGE,
        source="PySlowFast, configs/Kinetics/MVITv2_L_40x3_test.yaml",
        unverified="all: torchvision has the names and no weights" if _origin == "torchvision" else "",
        target_fps=30,
        linspace=True,
        short="hold",
        short_side=312,
        resize="pyslowfast",
        clips=5,
        crops=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        ssv2=_SSV2,
    )

_HUB = "https://download.pytorch.org/models/"
_ZOO = dict(licence="BSD-3-Clause", source="torchvision model zoo, V1 weights")
for _name, _file, *_accuracy in (
    ("mvit_v1_b_16x4", "mvit_v1_b-dbeb1030", 78.477, 93.582),
    ("mvit_v2_s_16x4", "mvit_v2_s-ae3be167", 80.757, 94.665),
):
    publish("torchvision", _name, f"{_HUB}{_file}.pth", "Kinetics-400", *_accuracy, **_ZOO)

_AI = "https://dl.fbaipublicfiles.com/"
_KINETICS_ZOO = dict(licence="Apache-2.0", source="pytorchvideo model zoo")
for _name, _file, *_accuracy in (
    ("mvit_v1_b_16x4", "MVIT_B_16x4", 78.85, 93.85),
    ("mvit_v1_b_32x3", "MVIT_B_32x3_f294077834", 80.30, 94.69),
):
    _url = f"{_AI}pytorchvideo/model_zoo/kinetics/{_file}.pyth"
    publish("pytorchvideo", _name, _url, "Kinetics-400", *_accuracy, **_KINETICS_ZOO)

_V1_ZOO = dict(licence="Apache-2.0", source="PySlowFast, MODEL_ZOO.md")
publish(
    "pyslowfast",
    "mvit_v1_b_16x4",
    drive("194gJinVejq6A1FmySNKQ8vAN5-FOY-QL"),
    "Kinetics-400",
    78.4,
    93.5,
    file="MVIT_B_16x4_CONV.pyth",
    **_V1_ZOO,
)
for _classes, *_accuracy in ((400, 80.4, 94.8), (600, 83.9, 96.5)):
    publish(
        "pyslowfast",
        "mvit_v1_b_32x3",
        f"{_AI}pyslowfast/model_zoo/mvit/k{_classes}.pyth",
        f"Kinetics-{_classes}",
        *_accuracy,
        variant="" if _classes == 400 else "k600",
        **_V1_ZOO,
    )
for _name, _file, *_accuracy in (
    ("mvit_v2_s_16x4", "MViTv2_S_16x4_k400_f302660347", 81.0, 94.6),
    ("mvit_v2_b_32x3", "MViTv2_B_32x3_k400_f304025456", 82.9, 95.7),
    ("mvit_v2_l_40x3", "MViTv2_L_40x3_k400_f306903192", 86.1, 97.0),
    ("mvit_v2_s_16x4", "MViTv2_S_16x4_ssv2_f308341823", 68.2, 91.4),
    ("mvit_v2_b_32x3", "MViTv2_B_32x3_ssv2_f305803282", 70.5, 92.7),
    ("mvit_v2_l_40x3", "MViTv2_L_40x3_ssv2_f309603968", 73.3, 94.1),
):
    publish(
        "pyslowfast",
        _name,
        f"{_AI}pyslowfast/model_zoo/mvitv2/pysf_video_models/{_file}.pyth",
        SSV2 if "ssv2" in _file else "Kinetics-400",
        *_accuracy,
        variant="ssv2" if "ssv2" in _file else "",
        licence="Apache-2.0",
        source="PySlowFast, projects/mvitv2/README.md",
    )
