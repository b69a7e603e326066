"""Rules for the image ViT of torchvision and timm, and for VideoMAE of its authors and of transformers.

transformers 5 stores the q and v biases in the linear layers ("transformers"); most files on its hub are
older and store them separately ("transformers_4").
"""

from collections.abc import Mapping

import numpy as np

from vidjax.convert.engine import CHANNELS_LAST, Rules, Transform, chain, linear, rule
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import SSV2, drive, hub, publish
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

_HUB = "https://download.pytorch.org/models/"
for _name, _file, *_accuracy in (
    ("vit_b_16", "vit_b_16-c867db91", 81.072, 95.318),
    ("vit_b_32", "vit_b_32-d86f8d99", 75.912, 92.466),
    ("vit_l_16", "vit_l_16-852ce7e3", 79.662, 94.638),
):
    publish(
        "torchvision",
        _name,
        f"{_HUB}{_file}.pth",
        "ImageNet",
        *_accuracy,
        licence="BSD-3-Clause",
        source="torchvision model zoo, V1 weights",
    )
for _name, _size in (
    ("vit_s_16", "small_patch16"),
    ("vit_b_16", "base_patch16"),
    ("vit_b_32", "base_patch32"),
    ("vit_l_16", "large_patch16"),
):
    _url = hub(f"timm/vit_{_size}_224.augreg_in21k_ft_in1k", "model.safetensors")
    publish("timm", _name, _url, "ImageNet", licence="Apache-2.0")

# Model, variant, dataset, key of the file on Google Drive, top-1 and top-5; then its name on the hub.
for _name, _variant, _dataset, _key, _accuracy, _repository in (
    ("videomae_s", "", "Kinetics-400", "1ygjLRm1kvs9mwGsP3lLxUExhRo6TWnrx", (79.0, 93.8), "small"),
    ("videomae_b", "", "Kinetics-400", "1MzwteHH-1yuMnFb8vRBQDvngV1Zl-d3z", (81.5, 95.1), "base"),
    ("videomae_b", "800e", "Kinetics-400", "18EEgdXY9347yK3Yb28O-GxFMbk41F6Ne", (80.0, 94.4), "base-short"),
    ("videomae_l", "", "Kinetics-400", "1jX1CiqxSkCfc94y8FRW1YGHy-GNvHCuD", (85.2, 96.8), "large"),
    ("videomae_h", "", "Kinetics-400", "104ouJZxSVPSAm0LwJXd6IzjdA_RGLqZi", (86.6, 97.1), "huge"),
    ("videomae_s", "ssv2", SSV2, "1ajlMrT06jiiM-5YjNI2X_UFyzsuYbbtZ", (66.8, 90.3), "small"),
    ("videomae_b", "ssv2", SSV2, "1dt_59tBIyzdZd5Ecr22lTtzs_64MOZkT", (70.8, 92.4), "base"),
    ("videomae_b", "ssv2_800e", SSV2, "1xZCiaPF4w7lYmLt5o1D5tIZyDdLtJAvH", (69.6, 92.0), "base-short"),
    ("videomae_b", "ucf101", "UCF101", "1MSyon6fPpKz7oqD6WDGPFK4k_Rbyb6fw", (91.3, 98.5), None),
    ("videomae_s_pretrain", "", "Kinetics-400", "1nU-H1u3eJ-VuyCveU7v-WIOcAVxs5Hww", (), None),
    ("videomae_b_pretrain", "", "Kinetics-400", "1tEhLyskjb755TJ65ptsrafUG2llSwQE1", (), "base"),
    ("videomae_l_pretrain", "", "Kinetics-400", "1qLOXWb_MGEvaI7tvuAe94CV7S2HXRwT3", (), "large"),
    ("videomae_h_pretrain", "", "Kinetics-400", "1AJQR1Rsi2N1pDn9tLyJ8DQrUREiBA1bO", (), None),
):
    _fields = dict(
        variant=_variant,
        licence="CC-BY-NC-4.0",
        source="github.com/MCG-NJU/VideoMAE, MODEL_ZOO.md" if _accuracy else "",
    )
    _file = f"{_name}{'_' * bool(_variant)}{_variant}.pth"
    publish("videomae", _name, drive(_key), _dataset, *_accuracy, file=_file, **_fields)
    if _repository:
        _tuned = "" if not _accuracy else "-finetuned-ssv2" if _dataset == SSV2 else "-finetuned-kinetics"
        _url = hub(f"MCG-NJU/videomae-{_repository}{_tuned}")
        publish("transformers_4", _name, _url, _dataset, *_accuracy, **_fields)

# VideoMAE V2: the large model is linked after a request form, the small ones are distilled from it.
_V2 = dict(licence="MIT", source="github.com/OpenGVLab/VideoMAEv2, model zoo")
_FORM = "https://github.com/OpenGVLab/VideoMAEv2/blob/master/docs/MODEL_ZOO.md"
for _variant, _dataset, _file, *_accuracy in (
    ("", "Kinetics-400", "k710_it_k400_ft", 88.4, 98.0),
    ("k400_direct", "Kinetics-400", "k400_ft", 87.2, 97.4),
    ("k600", "Kinetics-600", "k710_it_k600_ft", 88.8, 98.2),
    ("k710", "Kinetics-710", "k710_ft", 83.8, 96.4),
    ("ssv2", SSV2, "ssv2_ft", 77.0, 95.9),
    ("ucf101", "UCF101", "k710_it_ucf101_ft", 99.6, 100.0),
):
    _file = f"vit_g_hybrid_pt_1200e_{_file}.pth"
    publish("videomae", "videomae_v2_g", _FORM, _dataset, *_accuracy, variant=_variant, file=_file, **_V2)
for _name, _top1 in (("videomae_s", 77.6), ("videomae_b", 81.5)):
    _url = hub("OpenGVLab/VideoMAE2", f"distill/vit_{_name[-1]}_k710_dl_from_giant.pth")
    publish("videomae", _name, _url, "Kinetics-710", _top1, variant="v2_k710", **_V2)
_V2_PRETRAINED = dict(file="vit_g_hybrid_pt_1200e.pth", licence="MIT")
publish("videomae", "videomae_v2_g_pretrain", _FORM, "UnlabeledHybrid", **_V2_PRETRAINED)
# InternVideo: ViT-B pretrained on the videos of V2.
for _name, _variant, _dataset, _file, *_accuracy in (
    ("videomae_v2_b_pretrain", "", "UnlabeledHybrid", "vit_b_hybrid_pt_800e"),
    ("videomae_b", "hybrid", "Kinetics-400", "vit_b_hybrid_pt_800e_k400_ft", 81.52, 94.88),
    ("videomae_b", "hybrid_k710", "Kinetics-710", "vit_b_hybrid_pt_800e_k710_ft", 79.33, 94.03),
    ("videomae_b", "hybrid_ssv2", SSV2, "vit_b_hybrid_pt_800e_ssv2_ft", 71.22, 93.31),
):
    publish(
        "videomae",
        _name,
        f"https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/pretrain/videomae/{_file}.pth",
        _dataset,
        *_accuracy,
        variant=_variant,
        licence="Apache-2.0",
        source="github.com/OpenGVLab/InternVideo, VideoMAE/README.md" if _accuracy else "",
    )
