"""Rules for ViViT model 1 of Hugging Face, and for models 1 and 2 of the authors' release in Flax.

transformers 5 renamed the layers ("transformers"); the files on its hub are older ("transformers_4").
"""

import numpy as np

from vidjax.convert.engine import CHANNELS_LAST, Rules, Transform, chain, linear, rule
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import hub, publish

# Fuse q, k and v along the first axis (the outputs in PyTorch) or the last.
_ROWS = Transform(lambda xs: (np.concatenate(xs),), lambda xs: tuple(np.split(xs[0], 3)))
_COLUMNS = Transform(lambda xs: (np.concatenate(xs, axis=-1),), lambda xs: tuple(np.split(xs[0], 3, axis=-1)))


def _merge_heads(first: int) -> Transform:
    """Returns a transform [..., heads, head size, ...] <-> [..., D, ...] at the axis `first`.

    The head size is 64 in every ViT, or D / 2 if the model is too narrow for that.
    """

    def split(x: np.ndarray) -> np.ndarray:
        size = min(64, x.shape[first] // 2)
        return x.reshape(*x.shape[:first], -1, size, *x.shape[first + 1 :])

    def merge(x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:first], -1, *x.shape[first + 2 :])

    return Transform(lambda xs: tuple(map(merge, xs)), lambda xs: tuple(map(split, xs)))


def _torch_norm(source: str, ours: str) -> Rules:
    return (rule(f"{source}.weight", f"params/{ours}/scale"), rule(f"{source}.bias", f"params/{ours}/bias"))


def _transformers(layer: str, qkv: tuple[str, str, str], proj: str, fc1: str, fc2: str) -> Rules:
    q, k, v = (f"{layer}.{name}" for name in qkv)
    weights, biases = (tuple(f"{n}.{kind}" for n in (q, k, v)) for kind in ("weight", "bias"))
    return (
        *linear("vivit.embeddings.patch_embeddings.projection", "patch_embed"),
        rule("vivit.embeddings.cls_token", "params/cls_token"),
        rule("vivit.embeddings.position_embeddings", "params/pos_embed"),
        *_torch_norm(f"{layer}.layernorm_before", "block{i}/norm1"),
        rule(weights, "params/block{i}/attn/qkv/kernel", chain(_ROWS, CHANNELS_LAST)),
        rule(biases, "params/block{i}/attn/qkv/bias", _ROWS),
        *linear(f"{layer}.{proj}", "block{i}/attn/proj"),
        *_torch_norm(f"{layer}.layernorm_after", "block{i}/norm2"),
        *linear(f"{layer}.{fc1}", "block{i}/mlp/fc1"),
        *linear(f"{layer}.{fc2}", "block{i}/mlp/fc2"),
        *_torch_norm("vivit.layernorm", "norm"),
        *linear("classifier", "head"),
    )


_HUGGING_FACE = _transformers(
    "vivit.layers.{i}",
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.o_proj",
    "mlp.fc1",
    "mlp.fc2",
)
_HUGGING_FACE_4 = _transformers(
    "vivit.encoder.layer.{i}",
    tuple(f"attention.attention.{n}" for n in ("query", "key", "value")),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def _both(source: str, ours: str, *parts: str) -> Rules:
    """Returns rules for the parameters of a Flax layer, which have the same names in both models."""
    return tuple(rule(f"{source}/{part}", f"params/{ours}/{part}") for part in parts)


def _flax_encoder(encoder: str, cls: str, prefix: str = "") -> Rules:
    """Returns rules for an encoder of the release and its class token; vidjax names start with `prefix`."""
    layer, block = f"{encoder}/encoderblock_{{i}}", f"{prefix}block{{i}}"
    attention = f"{layer}/MultiHeadDotProductAttention_0"
    kernels, biases = (
        tuple(f"{attention}/{n}/{part}" for n in ("query", "key", "value")) for part in ("kernel", "bias")
    )
    return (
        rule(cls, f"params/{prefix}cls_token"),
        rule(f"{encoder}/posembed_input/pos_embedding", f"params/{prefix}pos_embed"),
        *_both(f"{layer}/LayerNorm_0", f"{block}/norm1", "scale", "bias"),
        rule(kernels, f"params/{block}/attn/qkv/kernel", chain(_merge_heads(1), _COLUMNS)),
        rule(biases, f"params/{block}/attn/qkv/bias", chain(_merge_heads(0), _COLUMNS)),
        rule(f"{attention}/out/kernel", f"params/{block}/attn/proj/kernel", _merge_heads(0)),
        rule(f"{attention}/out/bias", f"params/{block}/attn/proj/bias"),
        *_both(f"{layer}/LayerNorm_1", f"{block}/norm2", "scale", "bias"),
        *_both(f"{layer}/MlpBlock_0/Dense_0", f"{block}/mlp/fc1", "kernel", "bias"),
        *_both(f"{layer}/MlpBlock_0/Dense_1", f"{block}/mlp/fc2", "kernel", "bias"),
        *_both(f"{encoder}/encoder_norm", f"{prefix}norm", "scale", "bias"),
    )


_ENDS = (
    *_both("embedding", "patch_embed", "kernel", "bias"),
    *_both("output_projection", "head", "kernel", "bias"),
)
_FLAX = (*_ENDS, *_flax_encoder("Transformer", "cls"))
_FLAX_FE = (
    *_ENDS,
    *_flax_encoder("SpatialTransformer", "cls_SpatialTransformer"),
    *_flax_encoder("TemporalTransformer", "cls_TemporalTransformer", "time_"),
)
_ONE = ("vivit_b_16x2", "vivit_l_16x2")
TRANSFORMERS = dict.fromkeys(_ONE, _HUGGING_FACE)
TRANSFORMERS_4 = dict.fromkeys(_ONE, _HUGGING_FACE_4)
SCENIC = dict.fromkeys(_ONE, _FLAX) | dict.fromkeys(("vivit_b_16x2_fe", "vivit_l_16x2_fe"), _FLAX_FE)

for _origin, _rules in (
    ("scenic", SCENIC),
    ("transformers", TRANSFORMERS),
    ("transformers_4", TRANSFORMERS_4),
):
    declare(
        _origin,
        _rules,
        source="scenic/projects/vivit/configs/kinetics400/*.py; dmvr/processors.py",
        unverified="25 fps: from `Kinetics videos has 250 frames`, of ten seconds",
        stride=2,
        target_fps=25,
        short_side=256,
        resize="tensorflow",
        clips=4,
        crops=3,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )

_BUCKET = "https://storage.googleapis.com/scenic-bucket/vivit/"
_ZOO = dict(licence="Apache-2.0", source="scenic, projects/vivit/README.md")
for _name, _variant, _dataset, _folder, _top1 in (
    ("vivit_b_16x2", "", "Kinetics-400", "kinetics_400/vivit_base_16x2_unfactorized", 79.9),
    ("vivit_b_16x2_fe", "", "Kinetics-400", "kinetics_400/vivit_base_16x2_fe", 78.4),
    ("vivit_l_16x2_fe", "", "Kinetics-400", "kinetics_400/vivit_large_16x2_fe", 80.3),
    ("vivit_l_16x2_fe", "k600", "Kinetics-600", "kinetics_600/vivit_large_16x2_fe", 81.6),
):
    _file = f"{_name}{'_' * bool(_variant)}{_variant}.msgpack"
    _url = f"{_BUCKET}{_folder}/checkpoint"
    publish("scenic", _name, _url, _dataset, _top1, variant=_variant, file=_file, **_ZOO)
publish(
    "transformers_4",
    "vivit_b_16x2",
    hub("google/vivit-b-16x2-kinetics400"),
    "Kinetics-400",
    79.9,
    licence="MIT",
    source="scenic, projects/vivit/README.md, before the conversion",
)
