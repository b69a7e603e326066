"""Rules for the ResNets of PySlowFast, as saved by its PyTorch code."""

from vidjax.convert.engine import Rules, batch_norm, linear
from vidjax.convert.origins.pytorchvideo_resnets import RESNETS, SLOWFAST


def _pathway(number: int, to: str = "") -> Rules:
    rules = [
        *linear(f"s1.pathway{number}_stem.conv", f"{to}stem_conv", bias=False),
        *batch_norm(f"s1.pathway{number}_stem.bn", f"{to}stem_bn"),
    ]
    for i in range(1, 5):
        source, ours = f"s{i + 1}.pathway{number}_res{{block}}", f"{to}stage{i}_block{{block}}"
        rules += linear(f"{source}.branch1", f"{ours}/down_conv", bias=False)
        rules += batch_norm(f"{source}.branch1_bn", f"{ours}/down_bn")
        for j, letter in enumerate("abc", 1):
            rules += linear(f"{source}.branch2.{letter}", f"{ours}/conv{j}", bias=False)
            rules += batch_norm(f"{source}.branch2.{letter}_bn", f"{ours}/bn{j}")
        source, ours = f"s{i + 1}.pathway{number}_nonlocal{{block}}", f"{to}stage{i}_nonlocal{{block}}"
        rules += linear(f"{source}.conv_{{name:theta|phi|g|out}}", f"{ours}/{{name:theta|phi|g|out}}")
        rules += batch_norm(f"{source}.bn", f"{ours}/bn")
    return rules


def _lateral() -> Rules:
    rules = []
    for i, name in enumerate(("stem", "stage1", "stage2", "stage3"), 1):
        rules += linear(f"s{i}_fuse.conv_f2s", f"lateral_{name}/conv", bias=False)
        rules += batch_norm(f"s{i}_fuse.bn", f"lateral_{name}/bn")
    return rules


_HEAD = linear("head.projection", "head")
_RESNET = (*_pathway(0), *_HEAD)
_SLOWFAST = (*_pathway(0, "slow_"), *_pathway(1, "fast_"), *_lateral(), *_HEAD)

RULES = dict.fromkeys(RESNETS, _RESNET) | dict.fromkeys(SLOWFAST, _SLOWFAST)
