"""Rules for the bottleneck ResNets of pytorchvideo: C2D, I3D, Slow, R(2+1)D and SlowFast.

pytorchvideo numbers the parts of a network as blocks: the stem, the stages, pooling layers (without weights)
and the head. Within a stage, non-local layers are numbered together with the residual blocks.
"""

from vidjax.convert.engine import Rules, batch_norm, linear
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import SSV2, publish
from vidjax.models import create_model

_NON_LOCAL = ("theta", "phi", "g", "out")


def bottleneck(source: str, ours: str, factorised: bool = False) -> Rules:
    """Returns rules for a block of convolutions a (1x1), b (3x3 or, if factorized, (2+1)D) and c (1x1)."""
    rules = [
        *linear(f"{source}.branch1_conv", f"{ours}/down_conv", bias=False),
        *batch_norm(f"{source}.branch1_norm", f"{ours}/down_bn"),
    ]
    for i, letter in enumerate("abc", 1):
        rules += batch_norm(f"{source}.branch2.norm_{letter}", f"{ours}/bn{i}")
        if letter == "b" and factorised:
            conv = f"{source}.branch2.conv_b"
            rules += linear(f"{conv}.conv_t", f"{ours}/conv2/time", bias=False)
            rules += linear(f"{conv}.conv_xy", f"{ours}/conv2/space", bias=False)
            rules += batch_norm(f"{conv}.norm", f"{ours}/conv2/bn")
        else:
            rules += linear(f"{source}.branch2.conv_{letter}", f"{ours}/conv{i}", bias=False)
    return rules


def _stage(source: str, ours: str, blocks: int, non_local: tuple[int, ...] = (), **options: bool) -> Rules:
    if not non_local:
        return bottleneck(f"{source}.res_blocks.{{block}}", f"{ours}_block{{block}}", **options)
    rules, at = [], 0
    for block in range(blocks):
        rules += bottleneck(f"{source}.res_blocks.{at}", f"{ours}_block{block}", **options)
        at += 1
        if block in non_local:
            there, here = f"{source}.res_blocks.{at}", f"{ours}_nonlocal{block}"
            for name in _NON_LOCAL:
                rules += linear(f"{there}.conv_{name}", f"{here}/{name}")
            rules += batch_norm(f"{there}.norm", f"{here}/bn")
            at += 1
    return rules


def _stem(source: str, to: str = "") -> Rules:
    return [
        *linear(f"{source}.conv", f"{to}stem_conv", bias=False),
        *batch_norm(f"{source}.norm", f"{to}stem_bn"),
    ]


def _resnet(name: str, factorised: bool = False) -> Rules:
    model = create_model(name)
    rules, at = _stem("blocks.0"), 1
    for i, stage in enumerate(zip(model.stage_sizes, model.non_local), 1):
        rules += _stage(f"blocks.{at}", f"stage{i}", *stage, factorised=factorised)
        at += 2 if i == 1 and model.stage1_pool > 1 else 1
    return (*rules, *linear(f"blocks.{at}.proj", "head"))


def _slowfast(name: str) -> Rules:
    rules, model = [], create_model(name)
    for i, ours in enumerate(("stem", "stage1", "stage2", "stage3", "stage4")):
        slow, fast = (f"blocks.{i}.multipathway_blocks.{pathway}" for pathway in (0, 1))
        if i == 0:
            rules += _stem(slow, "slow_") + _stem(fast, "fast_")
        else:
            blocks = model.stage_sizes[i - 1]
            rules += _stage(slow, f"slow_{ours}", blocks, model.non_local[i - 1])
            rules += _stage(fast, f"fast_{ours}", blocks)
        if i < 4:
            source = f"blocks.{i}.multipathway_fusion"
            rules += linear(f"{source}.conv_fast_to_slow", f"lateral_{ours}/conv", bias=False)
            rules += batch_norm(f"{source}.norm", f"lateral_{ours}/bn")
    return (*rules, *linear("blocks.6.proj", "head"))


RESNETS = ("c2d_r50_8x8", "i3d_r50_8x8", "i3d_nln_r50_8x8", "slow_r50_8x8")
SLOWFAST = tuple(f"slowfast_{n}" for n in ("r50_4x16", "r50_8x8", "r101_8x8", "r101_16x8", "r101_16x8_nl"))

RULES = {
    **{name: _resnet(name) for name in RESNETS},
    "r2plus1d_r50_16x4": _resnet("r2plus1d_r50_16x4", factorised=True),
    **{name: _slowfast(name) for name in SLOWFAST},
}

# pytorchvideo's model zoo was evaluated with PySlowFast (docs/source/model_zoo.md).
PYSLOWFAST = dict(
    source="PySlowFast, configs/Kinetics/*.yaml, slowfast/datasets/*.py; MODEL_ZOO.md",
    target_fps=30,
    linspace=True,
    starts="left",
    short="hold",
    resize="pyslowfast",
    clips=10,
    crops=3,
    mean=(0.45,) * 3,
    std=(0.225,) * 3,
)
for _origin, _single in (("pytorchvideo", {*RULES} - {*SLOWFAST}), ("pyslowfast", RESNETS)):
    declare(_origin, sorted(_single), short_side=256, size=256, **PYSLOWFAST)
    declare(_origin, SLOWFAST, short_side=256, size=256, options={"slow_frames": "linspace"}, **PYSLOWFAST)

ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/"
ZOO_FIELDS = dict(licence="Apache-2.0", source="pytorchvideo model zoo")
for _name, _file, *_accuracy in (
    ("c2d_r50_8x8", "C2D_8x8_R50", 71.46, 89.68),
    ("i3d_r50_8x8", "I3D_8x8_R50", 73.27, 90.70),
    ("slow_r50_8x8", "SLOW_8x8_R50", 74.58, 91.63),
    ("slowfast_r50_4x16", "SLOWFAST_4x16_R50", 75.34, 91.89),
    ("slowfast_r50_8x8", "SLOWFAST_8x8_R50", 76.94, 92.69),
    ("slowfast_r101_8x8", "SLOWFAST_8x8_R101", 77.90, 93.27),
    ("slowfast_r101_16x8", "SLOWFAST_16x8_R101_50_50", 78.70, 93.61),
    ("r2plus1d_r50_16x4", "R2PLUS1D_16x4_R50", 76.01, 92.23),
):
    publish("pytorchvideo", _name, f"{ZOO}kinetics/{_file}.pyth", "Kinetics-400", *_accuracy, **ZOO_FIELDS)
publish(
    "pytorchvideo",
    "slow_r50_8x8",
    f"{ZOO}kinetics/SLOW_4x16_R50.pyth",
    "Kinetics-400",
    72.40,
    90.18,
    variant="4x16",
    protocol=dict(frames=4, stride=16),
    **ZOO_FIELDS,
)
for _name, _file, *_accuracy in (
    ("slow_r50_8x8", "SLOW_8x8_R50", 60.04, 85.19),
    ("slowfast_r50_8x8", "SLOWFAST_8x8_R50", 61.68, 86.92),
):
    publish(
        "pytorchvideo",
        _name,
        f"{ZOO}ssv2/{_file}.pyth",
        SSV2,
        *_accuracy,
        variant="ssv2",
        protocol=dict(
            source="PySlowFast, configs/SSv2/pytorchvideo/*.yaml",
            unverified="the frames of a clip",
            sampling="uniform",
            clips=1,
        ),
        **ZOO_FIELDS,
    )
