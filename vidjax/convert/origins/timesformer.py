"""Rules for TimeSformer of Hugging Face and of the authors (github.com/facebookresearch/TimeSformer)."""

from vidjax.convert.engine import CHANNELS_LAST, Rules, chain, linear, per_array, rule
from vidjax.convert.preprocessing import declare

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
