"""Names of the TSM authors' checkpoints (mit-han-lab/temporal-shift-module), of TSN as of TSM: torchvision's
trunk as `base_model`, whose shifted convolutions are wrapped as `net`, and the classifier `new_fc`."""

from vidjax.convert.engine import Rules, batch_norm, linear

_BLOCK, _OURS = "base_model.layer{stage}.{block}", "trunk/stage{stage}_block{block}"


def _resnet(shifted: str) -> Rules:
    """Of a ResNet of bottleneck blocks; `shifted` follows the name of their first convolution."""
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


RULES = {
    "tsn_resnet50": _resnet(""),
    **dict.fromkeys(("tsm_resnet50_8f", "tsm_resnet50_16f"), _resnet(".net")),
}
