"""Rules for TimeSformer of Hugging Face and of the authors (github.com/facebookresearch/TimeSformer)."""

from vidjax.convert.engine import CHANNELS_LAST, Rules, chain, linear, per_array, rule
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import SSV2, hub, publish

# A 2D patch is a tubelet of one frame.
_TUBELET = chain(CHANNELS_LAST, per_array(lambda x: x[None], lambda x: x[0]))


def _norm(source: str, ours: str) -> Rules:
    return (rule(f"{source}.weight", f"params/{ours}/scale"), rule(f"{source}.bias", f"params/{ours}/bias"))


def _rules(
    patch: str, tables: dict[str, str], block: str, parts: dict[str, str], norm: str, head: str
) -> Rules:
    """Returns rules from the source's names of the patch embedding, tables, blocks, block parts and head."""
    rules = [
        rule(f"{patch}.weight", "params/patch_embed/kernel", _TUBELET),
        rule(f"{patch}.bias", "params/patch_embed/bias"),
        *(rule(theirs, f"params/{ours}") for theirs, ours in tables.items()),
        *_norm(norm, "norm"),
        *linear(head, "head"),
    ]
    for theirs, ours in parts.items():
        kind = _norm if "norm" in ours else linear
        rules += kind(f"{block}.{{i}}.{theirs}", f"block{{i}}/{ours}")
    return tuple(rules)


_HUGGING_FACE = _rules(
    "timesformer.embeddings.patch_embeddings.projection",
    {
        "timesformer.embeddings.cls_token": "cls_token",
        "timesformer.embeddings.position_embeddings": "pos_embed",
        "timesformer.embeddings.time_embeddings": "time_embed",
    },
    "timesformer.encoder.layer",
    {
        "temporal_layernorm": "time_norm",
        "temporal_attention.attention.qkv": "time_attn/qkv",
        "temporal_attention.output.dense": "time_attn/proj",
        "temporal_dense": "time_fc",
        "layernorm_before": "norm1",
        "attention.attention.qkv": "attn/qkv",
        "attention.output.dense": "attn/proj",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp/fc1",
        "output.dense": "mlp/fc2",
    },
    "timesformer.layernorm",
    "classifier",
)
_AUTHORS = _rules(
    "model.patch_embed.proj",
    {"model.cls_token": "cls_token", "model.pos_embed": "pos_embed", "model.time_embed": "time_embed"},
    "model.blocks",
    {
        "temporal_norm1": "time_norm",
        "temporal_attn.qkv": "time_attn/qkv",
        "temporal_attn.proj": "time_attn/proj",
        "temporal_fc": "time_fc",
        "norm1": "norm1",
        "attn.qkv": "attn/qkv",
        "attn.proj": "attn/proj",
        "norm2": "norm2",
        "mlp.fc1": "mlp/fc1",
        "mlp.fc2": "mlp/fc2",
    },
    "model.norm",
    "model.head",
)
_NAMES = (
    "timesformer_b_8x32",
    "timesformer_hr_16x16",
    "timesformer_l_96x4",
    "timesformer_b_8x32_joint",
    "timesformer_b_8x32_space",
)
TRANSFORMERS = dict.fromkeys(_NAMES, _HUGGING_FACE)
AUTHORS = dict.fromkeys(_NAMES, _AUTHORS)

for _origin, _rules in (("timesformer", AUTHORS), ("transformers", TRANSFORMERS)):
    for _name in _rules:
        declare(
            _origin,
            _name,
            source="TimeSformer, configs/Kinetics/*.yaml, timesformer/datasets/{kinetics,ssv2,decoder}.py",
            target_fps=30,
            linspace=True,
            starts="left",
            short="hold",
            short_side=448 if "hr" in _name else 224,
            resize="pyslowfast",
            clips=1,
            crops=3,
            mean=(0.45,) * 3,
            std=(0.225,) * 3,
            ssv2=dict(sampling="uniform"),
        )

_KINETICS = ("timesformer_b_8x32", "timesformer_hr_16x16", "timesformer_l_96x4")
# Dataset: its name in files; Dropbox key, file, top-1 and top-5 of base, HR and L.
for _dataset, _short, *_rows in (
    (
        "Kinetics-400",
        "K400",
        ("g5t24we9gl5yk88", "8x32_224", 77.9, 93.2),
        ("6f0x172lpqy3oxt", "16x16_448", 79.6, 94.0),
        ("r1iuxahif3sgimo", "96x4_224", 80.6, 94.7),
    ),
    (
        "Kinetics-600",
        "K600",
        ("4h2qt41m2z3aqrb", "8x32_224", 79.1, 94.4),
        ("ft1e92g2vhvxecv", "16x16_448", 81.8, 95.8),
        ("857rx6xeclxfhdg", "96x4_224", 82.2, 95.6),
    ),
    (
        SSV2,
        "SSv2",
        ("tybhuml57y24wpm", "8_224", 59.1, 85.6),
        ("9t68uzk8w2fpfnv", "16_448", 61.8, 86.9),
        ("3f1rm2al8mhprwa", "64_224", 62.0, 87.5),
    ),
):
    for _name, (_key, _file, *_accuracy) in zip(_KINETICS, _rows, strict=True):
        _fields = dict(
            variant="" if _short == "K400" else _short.lower(),
            licence="CC-BY-NC-4.0",
            source="github.com/facebookresearch/TimeSformer, README.md",
            protocol=dict(frames=64, options={"frames": 64}) if _file.startswith("64") else {},
        )
        _url = f"https://www.dropbox.com/s/{_key}/TimeSformer_divST_{_file}_{_short}.pyth?dl=1"
        publish("timesformer", _name, _url, _dataset, *_accuracy, **_fields)
        if not _name.startswith("timesformer_l"):
            _size = "hr" if "hr" in _name else "base"
            _url = hub(f"facebook/timesformer-{_size}-finetuned-{_short.lower()}")
            publish("transformers", _name, _url, _dataset, *_accuracy, **_fields)
