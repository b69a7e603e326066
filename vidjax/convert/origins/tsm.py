"""Rules for the TSN and TSM checkpoints of the TSM authors (mit-han-lab/temporal-shift-module).

The torchvision backbone is `base_model`, its shifted convolutions are wrapped as `net`, and the classifier is
`new_fc`.
"""

from vidjax.convert.engine import Rules, batch_norm, linear
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import SSV2, publish
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD

_BLOCK, _OURS = "base_model.layer{stage}.{block}", "trunk/stage{stage}_block{block}"


def _resnet(shifted: str) -> Rules:
    """Returns rules for a bottleneck ResNet; `shifted` is the suffix of each block's first convolution."""
    return (
        *linear("base_model.conv1", "trunk/stem_conv", bias=False),
        *batch_norm("base_model.bn1", "trunk/stem_bn"),
        *linear(f"{_BLOCK}.conv1{shifted}", f"{_OURS}/conv1", bias=False),
        *linear(f"{_BLOCK}.conv{{i:[23]}}", f"{_OURS}/conv{{i:[23]}}", bias=False),
        *batch_norm(f"{_BLOCK}.bn{{i}}", f"{_OURS}/bn{{i}}"),
        *linear(f"{_BLOCK}.downsample.0", f"{_OURS}/down_conv", bias=False),
        *batch_norm(f"{_BLOCK}.downsample.1", f"{_OURS}/down_bn"),
        *linear("new_fc", "head"),
    )


def _mobilenet() -> Rules:
    """Returns rules for MobileNetV2; blocks with a shortcut, all but the first of a stage, are shifted."""
    rules = []
    for at, ours in ((0, "stem"), (18, "last")):
        rules += linear(f"base_model.features.{at}.0", f"trunk/{ours}_conv", bias=False)
        rules += batch_norm(f"base_model.features.{at}.1", f"trunk/{ours}_bn")
    at = 0
    for stage, blocks in enumerate((1, 2, 3, 4, 3, 3, 1), 1):
        for j in range(blocks):
            at += 1
            ours = f"trunk/stage{stage}_block{j}"
            for k, i in enumerate((1, 2, 3) if stage > 1 else (2, 3)):  # the first stage does not expand
                theirs = f"base_model.features.{at}.conv"
                shifted = ".net" if j > 0 and i == 1 else ""
                rules += linear(f"{theirs}.{3 * k}{shifted}", f"{ours}/conv{i}", bias=False)
                rules += batch_norm(f"{theirs}.{3 * k + 1}", f"{ours}/bn{i}")
    return *rules, *linear("new_fc", "head")


RULES = {
    "tsm_mobilenet_v2_8f": _mobilenet(),
    "tsn_resnet50": _resnet(""),
    **dict.fromkeys(("tsm_resnet50_8f", "tsm_resnet50_16f"), _resnet(".net")),
}

_TSM = dict(
    source="temporal-shift-module, test_models.py, ops/dataset.py and README.md, `--dense_sample --full_res`",
    unverified="weights trained without dense sampling, which share the names",
    short_side=256,
    size=256,
    resize="pil",
    clips=10,
    crops=3,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    ssv2=dict(
        source="temporal-shift-module, README.md, `--test_crops=3 --twice_sample`",
        sampling="uniform",
        size=None,
        clips=2,
        unverified="",
    ),
)
for _name in RULES:
    declare("tsm", _name, stride=4 if _name.endswith("16f") else 8, **_TSM)

# Model, variant, file, dataset, top-1 and the views.
_DENSE, _UNIFORM, _TWICE = {}, dict(sampling="uniform", size=None, clips=1, crops=1), {}
for _name, _variant, _file, _dataset, _top1, _protocol in (
    ("tsn_resnet50", "", "kinetics_RGB_resnet50_avg_segment5_e50", "Kinetics-400", 70.6, _DENSE),
    ("tsn_resnet50", "uniform", "kinetics_RGB_resnet50_avg_segment5_e50", "Kinetics-400", 68.8, _UNIFORM),
    (
        "tsm_resnet50_8f",
        "",
        "kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense",
        "Kinetics-400",
        74.1,
        _DENSE,
    ),
    (
        "tsm_resnet50_8f",
        "uniform",
        "kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50",
        "Kinetics-400",
        71.2,
        _UNIFORM,
    ),
    (
        "tsm_resnet50_16f",
        "uniform",
        "kinetics_RGB_resnet50_shift8_blockres_avg_segment16_e50",
        "Kinetics-400",
        72.6,
        _UNIFORM,
    ),
    (
        "tsm_mobilenet_v2_8f",
        "",
        "kinetics_RGB_mobilenetv2_shift8_blockres_avg_segment8_e100_dense",
        "Kinetics-400",
        69.5,
        _DENSE,
    ),
    (
        "tsm_resnet50_8f",
        "ssv2",
        "somethingv2_RGB_resnet50_shift8_blockres_avg_segment8_e45",
        SSV2,
        61.2,
        _TWICE,
    ),
    (
        "tsm_resnet50_16f",
        "ssv2",
        "somethingv2_RGB_resnet50_shift8_blockres_avg_segment16_e45",
        SSV2,
        63.1,
        _TWICE,
    ),
):
    publish(
        "tsm",
        _name,
        f"https://file.lzhu.me/projects/tsm/models/TSM_{_file}.pth",
        _dataset,
        _top1,
        variant=_variant,
        licence="MIT",
        source="github.com/mit-han-lab/temporal-shift-module, README.md",
        protocol=_protocol | ({"unverified": ""} if _dataset != SSV2 else {}),
    )
