"""Rules for Video Swin Transformers.

Supported are torchvision's names, those of the authors (github.com/SwinTransformer/Video-Swin-Transformer),
and those of the image models that the authors start from (microsoft/Swin-Transformer).

Image models are inflated as in section 3.3 of the paper: the patch embedding's kernel is divided evenly over
its two frames, and the relative position biases are repeated for every temporal distance. On a static clip
the inflated model thus has the output of the image model, including the classifier.
"""

import numpy as np

from vidjax.convert.engine import (
    CHANNELS_LAST,
    IDENTITY,
    Dropped,
    Rules,
    Transform,
    chain,
    linear,
    per_array,
    rule,
)
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import SSV2, publish
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD

WINDOW, FRAMES = (8, 7, 7), 2
_SPREAD = per_array(lambda x: np.stack([x / FRAMES] * FRAMES, 2), lambda x: x.sum(2))
_AT_ALL_TIMES = per_array(
    lambda x: np.tile(x, (2 * WINDOW[0] - 1, 1)), lambda x: x[: len(x) // (2 * WINDOW[0] - 1)]
)


def _norm(source: str, ours: str) -> Rules:
    return (rule(f"{source}.weight", f"params/{ours}/scale"), rule(f"{source}.bias", f"params/{ours}/bias"))


def _index(window: tuple[int, int, int]) -> np.ndarray:
    """Returns the bias table's row for each pair of tokens, which is a redundant buffer of the source."""
    places = np.stack(np.meshgrid(*map(np.arange, window), indexing="ij")).reshape(3, -1)
    offsets = places[:, :, None] - places[:, None] + np.reshape(window, (3, 1, 1)) - 1
    return np.ravel_multi_index(tuple(offsets), [2 * w - 1 for w in window])


def _rules(
    stages: list[str], merges: list[str], prefix: str, fc1: str, fc2: str, head: str, image: bool = False
) -> Rules:
    """Returns rules from the source's prefixes of each stage's blocks and of the patch merging layers."""
    patches = f"{prefix}patch_embed.proj"
    rules = [
        rule(f"{patches}.weight", "params/patch_embed/kernel", _inflated(_SPREAD, image, CHANNELS_LAST)),
        rule(f"{patches}.bias", "params/patch_embed/bias"),
        *_norm(f"{prefix}patch_embed.norm", "patch_norm"),
        *_norm(f"{prefix}norm", "norm"),
        *linear(head, "head"),
    ]
    for i, stage in enumerate(stages, 1):
        theirs, ours = f"{stage}.{{block}}", f"stage{i}_block{{block}}"
        table = f"{ours}/attn/relative_position_bias"
        rules += [
            *_norm(f"{theirs}.norm1", f"{ours}/norm1"),
            *linear(f"{theirs}.attn.qkv", f"{ours}/attn/qkv"),
            *linear(f"{theirs}.attn.proj", f"{ours}/attn/proj"),
            rule(
                f"{theirs}.attn.relative_position_bias_table",
                f"params/{table}",
                _inflated(_AT_ALL_TIMES, image, IDENTITY),
            ),
            Dropped(
                f"{theirs}.attn.relative_position_index",
                f"params/{table}",
                _index((1, *WINDOW[1:]) if image else WINDOW),
            ),
            *_norm(f"{theirs}.norm2", f"{ours}/norm2"),
            *linear(f"{theirs}.mlp.{fc1}", f"{ours}/mlp/fc1"),
            *linear(f"{theirs}.mlp.{fc2}", f"{ours}/mlp/fc2"),
        ]
    if image:
        rules.append(Dropped(f"{stages[0].replace('0', '{stage}')}.{{block}}.attn_mask", "", None))
    for i, merge in enumerate(merges, 2):
        rules += [
            *linear(f"{merge}.reduction", f"stage{i}_merge/reduction", bias=False),
            *_norm(f"{merge}.norm", f"stage{i}_merge/norm"),
        ]
    return tuple(rules)


def _inflated(inflate: Transform, image: bool, otherwise: Transform) -> Transform:
    return chain(inflate, otherwise) if image else otherwise


_NAMES = ("swin3d_t", "swin3d_s", "swin3d_b", "swin3d_l")
TORCHVISION = dict.fromkeys(
    _NAMES,
    _rules(
        [f"features.{2 * i}" for i in range(4)],
        [f"features.{2 * i + 1}" for i in range(3)],
        prefix="",
        fc1="0",
        fc2="3",
        head="head",
    ),
)
AUTHORS = dict.fromkeys(
    _NAMES,
    _rules(
        [f"backbone.layers.{i}.blocks" for i in range(4)],
        [f"backbone.layers.{i}.downsample" for i in range(3)],
        prefix="backbone.",
        fc1="fc1",
        fc2="fc2",
        head="cls_head.fc_cls",
    ),
)
IMAGE = dict.fromkeys(
    _NAMES,
    _rules(
        [f"layers.{i}.blocks" for i in range(4)],
        [f"layers.{i}.downsample" for i in range(3)],
        prefix="",
        fc1="fc1",
        fc2="fc2",
        head="head",
        image=True,
    ),
)

_IMAGENET = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
declare(
    "torchvision",
    ("swin3d_t", "swin3d_s", "swin3d_b"),
    source="torchvision/models/video/swin_transformer.py, KINETICS400_V1",
    target_fps=15,
    stride=1,
    short_side=256,
    resize="torchvision",
    clips=12,
    crops=1,
    **_IMAGENET,
)
for _origin, _names in (("torchvision", ("swin3d_l",)), ("video_swin", AUTHORS)):
    declare(
        _origin,
        _names,
        source="Video-Swin-Transformer, configs/recognition/swin/*.py and mmaction/datasets/pipelines",
        unverified="all: torchvision has the names and no weights" if _origin == "torchvision" else "",
        stride=2,
        starts="centers",
        short_side=224,
        resize="mmaction",
        clips=4,
        crops=3,
        ssv2=dict(sampling="uniform", clips=1),
        **_IMAGENET,
    )
declare(
    "swin",
    IMAGE,
    source="an image model's weights, inflated",
    unverified="the clip: that of Video Swin",
    stride=2,
    starts="centers",
    short_side=224,
    resize="mmaction",
    **_IMAGENET,
)

_STORAGE = "https://github.com/SwinTransformer/storage/releases/download/"
_HUB = "https://download.pytorch.org/models/"
for _name, _variant, _file, *_accuracy in (
    ("swin3d_t", "", "swin3d_t-7615ae03", 77.715, 93.519),
    ("swin3d_s", "", "swin3d_s-da41c237", 79.521, 94.158),
    ("swin3d_b", "in1k", "swin3d_b_1k-24f7c7c6", 79.427, 94.386),
    ("swin3d_b", "in22k", "swin3d_b_22k-7c6ae6fa", 81.643, 95.574),
):
    publish(
        "torchvision",
        _name,
        f"{_HUB}{_file}.pth",
        "Kinetics-400",
        *_accuracy,
        variant=_variant,
        licence="BSD-3-Clause",
        source="torchvision model zoo, V1 weights",
    )
for _name, _variant, _file, _dataset, *_accuracy in (
    ("swin3d_t", "", "tiny_patch244_window877_kinetics400_1k", "Kinetics-400", 78.8, 93.6),
    ("swin3d_s", "", "small_patch244_window877_kinetics400_1k", "Kinetics-400", 80.6, 94.5),
    ("swin3d_b", "in1k", "base_patch244_window877_kinetics400_1k", "Kinetics-400", 80.6, 94.6),
    ("swin3d_b", "in22k", "base_patch244_window877_kinetics400_22k", "Kinetics-400", 82.7, 95.5),
    ("swin3d_b", "k600", "base_patch244_window877_kinetics600_22k", "Kinetics-600", 84.0, 96.5),
    ("swin3d_b", "ssv2", "base_patch244_window1677_sthv2", SSV2, 69.6, 92.7),
):
    publish(
        "video_swin",
        _name,
        f"{_STORAGE}v1.0.4/swin_{_file}.pth",
        _dataset,
        *_accuracy,
        variant=_variant,
        licence="Apache-2.0",
        source="github.com/SwinTransformer/Video-Swin-Transformer, README.md",
        protocol=dict(options={"window": (16, 7, 7)}) if "1677" in _file else {},
    )
for _name, _file, *_accuracy in (
    ("swin3d_t", "tiny_patch4_window7_224", 81.2, 95.5),
    ("swin3d_s", "small_patch4_window7_224", 83.2, 96.2),
    ("swin3d_b", "base_patch4_window7_224", 83.5, 96.5),
    ("swin3d_l", "large_patch4_window7_224_22kto1k", 86.3, 97.9),
):
    publish(
        "swin",
        _name,
        f"{_STORAGE}v1.0.0/swin_{_file}.pth",
        "ImageNet",
        *_accuracy,
        licence="MIT",
        source="github.com/microsoft/Swin-Transformer, README.md",
        note="weights of an image model, to start from",
    )
