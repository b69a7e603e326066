"""Rules for the ResNets of PySlowFast's model zoo, which are in Caffe2's naming (.pkl).

The names are those that PySlowFast reads: slowfast/utils/c2_model_loading.py.
"""

from vidjax.convert.engine import CHANNELS_LAST, Dropped, Rules, rule
from vidjax.convert.origins.pytorchvideo_resnets import PYSLOWFAST, RESNETS
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish

SLOWFAST = ("slowfast_r50_4x16", "slowfast_r50_8x8")


def _conv(source: str, ours: str) -> Rules:
    return (rule(f"{source}_w", f"params/{ours}/kernel", CHANNELS_LAST),)


def _norm(source: str, ours: str) -> Rules:
    return (
        rule(f"{source}_s", f"params/{ours}/scale"),
        rule(f"{source}_b", f"params/{ours}/bias"),
        rule(f"{source}_rm", f"batch_stats/{ours}/mean"),
        rule(f"{source}_riv", f"batch_stats/{ours}/var"),  # the variance, in spite of its name
    )


def _pathway(theirs: str, to: str = "") -> Rules:
    rules = [*_conv(f"{theirs}conv1", f"{to}stem_conv"), *_norm(f"{theirs}res_conv1_bn", f"{to}stem_bn")]
    for i in range(1, 5):
        source, ours = f"{theirs}res{i + 1}_{{block}}_branch", f"{to}stage{i}_block{{block}}"
        rules += _conv(f"{source}1", f"{ours}/down_conv")
        rules += _norm(f"{source}1_bn", f"{ours}/down_bn")
        for j, letter in enumerate("abc", 1):
            rules += _conv(f"{source}2{letter}", f"{ours}/conv{j}")
            rules += _norm(f"{source}2{letter}_bn", f"{ours}/bn{j}")
    return rules


def _non_local() -> Rules:
    rules = []
    for i in (2, 3):
        source, ours = f"nonlocal_conv{i + 1}_{{block}}", f"stage{i}_nonlocal{{block}}"
        part = "{part:theta|phi|g|out}"
        rules += _conv(f"{source}_{part}", f"{ours}/{part}")
        rules += [
            rule(f"{source}_{part}_b", f"params/{ours}/{part}/bias"),
            *_norm(f"{source}_bn", f"{ours}/bn"),
        ]
    return rules


def _lateral(stages: tuple[int, ...]) -> Rules:
    last = [f"t_res{i + 2}_{blocks - 1}_branch2c_bn" for i, blocks in enumerate(stages[:3])]
    rules = []
    for source, ours in zip(("t_pool1", *last), ("stem", "stage1", "stage2", "stage3"), strict=True):
        rules += _conv(f"{source}_subsample", f"lateral_{ours}/conv")
        rules += _norm(f"{source}_subsample_bn", f"lateral_{ours}/bn")
    return rules


_REST = (
    *_conv("pred", "head"),
    rule("pred_b", "params/head/bias"),
    # State of the optimizer.
    Dropped("{name:.*_momentum|lr|model_iter}", "", None),
)
RULES = dict.fromkeys(RESNETS, (*_pathway(""), *_non_local(), *_REST)) | {
    name: (*_pathway("", "slow_"), *_pathway("t_", "fast_"), *_lateral((3, 4, 6, 3)), *_REST)
    for name in SLOWFAST
}

declare("pyslowfast_caffe2", RESNETS, short_side=256, size=256, **PYSLOWFAST)
declare(
    "pyslowfast_caffe2", SLOWFAST, short_side=256, size=256, options={"slow_frames": "linspace"}, **PYSLOWFAST
)

for _name, _variant, _file, _protocol, *_accuracy in (
    ("c2d_r50_8x8", "no_pool", "C2D_NOPOOL_8x8_R50", dict(options={"stage1_pool": 1}), 67.2, 87.8),
    ("i3d_r50_8x8", "", "I3D_8x8_R50", {}, 73.5, 90.8),
    ("i3d_nln_r50_8x8", "", "I3D_NLN_8x8_R50", {}, 74.0, 91.1),
    ("slow_r50_8x8", "4x16", "SLOWONLY_4x16_R50", dict(frames=4, stride=16), 72.7, 90.3),
    ("slow_r50_8x8", "", "SLOWONLY_8x8_R50", {}, 74.8, 91.6),
    ("slowfast_r50_4x16", "", "SLOWFAST_4x16_R50", {}, 75.6, 92.0),
    ("slowfast_r50_8x8", "", "SLOWFAST_8x8_R50", {}, 77.0, 92.6),
):
    publish(
        "pyslowfast_caffe2",
        _name,
        f"https://dl.fbaipublicfiles.com/pyslowfast/model_zoo/kinetics400/{_file}.pkl",
        "Kinetics-400",
        *_accuracy,
        variant=_variant,
        licence="Apache-2.0",
        source="PySlowFast, MODEL_ZOO.md",
        protocol=_protocol,
    )
