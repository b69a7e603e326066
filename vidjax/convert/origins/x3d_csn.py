"""Rules for X3D and CSN of pytorchvideo, and for CSN of its authors (VMZ).

PySlowFast's X3D is not supported: it has an additional norm in the shortcut of the first block.
"""

from vidjax.convert.engine import Rules, Transform, batch_norm, linear, per_array, rule
from vidjax.convert.origins.pytorchvideo_resnets import PYSLOWFAST, ZOO, ZOO_FIELDS, bottleneck
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish
from vidjax.registry import KINETICS_MEAN, KINETICS_STD

NAMES_X3D = tuple(f"x3d_{size}" for size in ("xs", "s", "m", "l"))
NAMES_IR = tuple(f"csn_ir_{depth}" for depth in (50, 101, 152))


def pointwise(window: int) -> Transform:
    """Returns a transform from a PyTorch pointwise convolution over `window` axes to a Dense kernel."""
    return per_array(lambda x: x.reshape(x.shape[:2]).T, lambda x: x.T.reshape(*x.T.shape, *(1,) * window))


def dense(source: str, ours: str, window: int = 3, bias: bool = True) -> Rules:
    """Returns rules from a pointwise PyTorch convolution to a Dense layer."""
    weight = rule(f"{source}.weight", f"params/{ours}/kernel", pointwise(window))
    return (weight, rule(f"{source}.bias", f"params/{ours}/bias")) if bias else (weight,)


def _x3d_pytorchvideo() -> Rules:
    rules = [
        *linear("blocks.0.conv.conv_t", "stem_conv", bias=False),
        *linear("blocks.0.conv.conv_xy", "stem_conv_time", bias=False),
        *batch_norm("blocks.0.norm", "stem_bn"),
        *linear("blocks.5.pool.pre_conv", "final_conv", bias=False),
        *batch_norm("blocks.5.pool.pre_norm", "final_bn"),
        *dense("blocks.5.pool.post_conv", "fc", bias=False),
        *linear("blocks.5.proj", "head"),
    ]
    for stage in range(1, 5):
        source, ours = f"blocks.{stage}.res_blocks.{{block}}", f"stage{stage}_block{{block}}"
        # The second norm is in a Sequential with squeeze-and-excitation.
        rules += [r for r in bottleneck(source, ours) if "norm_b" not in str(r)]
        rules += batch_norm(f"{source}.branch2.norm_b.0", f"{ours}/bn2")
        rules += dense(f"{source}.branch2.norm_b.1.block.0", f"{ours}/se/fc1")
        rules += dense(f"{source}.branch2.norm_b.1.block.2", f"{ours}/se/fc2")
    return tuple(rules)


def _csn_pytorchvideo() -> Rules:
    rules = [
        *linear("blocks.0.conv", "stem_conv", bias=False),
        *batch_norm("blocks.0.norm", "stem_bn"),
        *linear("blocks.5.proj", "head"),
    ]
    for stage in range(1, 5):
        rules += bottleneck(f"blocks.{stage}.res_blocks.{{block}}", f"stage{stage}_block{{block}}")
    return tuple(rules)


def _csn_vmz(preserved: bool) -> Rules:
    rules = [
        *linear("stem.0", "stem_conv", bias=False),
        *batch_norm("stem.1", "stem_bn"),
        *linear("fc", "head"),
    ]
    source, ours = "layer{stage}.{block}", "stage{stage}_block{block}"
    for i in (1, 2, 3):
        rules += batch_norm(f"{source}.conv{i}.1", f"{ours}/bn{i}")
        if i == 2 and preserved:
            rules += linear(f"{source}.conv2.0.0", f"{ours}/conv2_point", bias=False)
            rules += batch_norm(f"{source}.conv2.0.1", f"{ours}/bn2_point")
            rules += linear(f"{source}.conv2.0.2", f"{ours}/conv2", bias=False)
        else:
            rules += linear(f"{source}.conv{i}.0", f"{ours}/conv{i}", bias=False)
    rules += linear(f"{source}.downsample.0", f"{ours}/down_conv", bias=False)
    rules += batch_norm(f"{source}.downsample.1", f"{ours}/down_bn")
    return tuple(rules)


_IR = _csn_vmz(preserved=False)
PYTORCHVIDEO = dict.fromkeys(NAMES_X3D, _x3d_pytorchvideo()) | dict.fromkeys(NAMES_IR, _csn_pytorchvideo())
VMZ = dict.fromkeys(NAMES_IR, _IR) | {"csn_ip_152": _csn_vmz(preserved=True)}

for _name, _size in (("x3d_xs", 182), ("x3d_s", 182), ("x3d_m", 256), ("x3d_l", 356)):
    declare("pytorchvideo", _name, short_side=_size, size=_size, **PYSLOWFAST)
declare("pytorchvideo", NAMES_IR, short_side=256, size=256, **PYSLOWFAST)
declare(
    "vmz",
    VMZ,
    source="VMZ, c2/scripts/test_irCSN_152_kinetics.sh (scale 342x256, crop 256) and ops/av_input_op.h",
    unverified="the resize's library; where the ten clips lie",
    stride=2,
    short_side=256,
    size=256,
    resize="opencv",
    clips=10,
    crops=3,
    mean=KINETICS_MEAN,
    std=KINETICS_STD,
)

for _name, _file, *_accuracy in (
    ("x3d_xs", "X3D_XS", 69.12, 88.63),
    ("x3d_s", "X3D_S", 73.33, 91.27),
    ("x3d_m", "X3D_M", 75.94, 92.72),
    ("x3d_l", "X3D_L", 77.44, 93.31),
    ("csn_ir_101", "CSN_32x2_R101", 77.00, 92.90),
):
    publish("pytorchvideo", _name, f"{ZOO}kinetics/{_file}.pyth", "Kinetics-400", *_accuracy, **ZOO_FIELDS)
for _name, _file, *_accuracy in (
    ("csn_ir_152", "irCSN_152_ft_kinetics_from_Sports1M_f101599884", 78.2, 93.0),
    ("csn_ir_152", "irCSN_152_ft_kinetics_from_ig65m_f126851907", 82.6, 95.3),
    ("csn_ip_152", "ipCSN_152_ft_kinetics_from_Sports1M_f111279053", 78.8, 93.5),
    ("csn_ip_152", "ipCSN_152_ft_kinetics_from_ig65m_f133090949", 82.5, 95.3),
):
    publish(
        "vmz",
        _name,
        f"https://github.com/bjuncek/VMZ/releases/download/test_models/{_file}.pth",
        "Kinetics-400",
        *_accuracy,
        variant="ig65m" if "ig65m" in _file else "sports1m",
        licence="Apache-2.0",
        source="VMZ, c2/tutorials/model_zoo.md, before the conversion to PyTorch",
    )
