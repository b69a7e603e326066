"""MobileNetV2: inverted residual blocks, narrow outside and wide inside.

Paper: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, arXiv:1801.04381,
Table 2. Input: images [B, H, W, C].
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.models.image.resnet import BeforeBlock
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model

# Table 2: expansion t, channels c, blocks n, stride s of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Inverted residual block (Table 1): 1x1 expansion, 3x3 depthwise convolution, linear 1x1 projection.

    The shortcut is present where the block keeps the shape.
    """

    features: int
    expand: int
    stride: int
    bn_groups: int
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, branch: jax.Array | None = None) -> jax.Array:
        """Maps [B, H, W, C] to [B, H/stride, W/stride, features].

        The input of the residual branch is `branch` if given, else `x`.
        """
        conv = partial(Conv, dtype=self.dtype, param_dtype=self.param_dtype)
        norm = partial(BatchNorm, groups=self.bn_groups, param_dtype=self.param_dtype)
        inner = x.shape[-1] * self.expand
        y = x if branch is None else branch
        if self.expand > 1:
            y = nn.relu6(norm(name="bn1")(conv(inner, (1, 1), name="conv1")(y), train))
        y = conv(inner, (3, 3), self.stride, 1, feature_group_count=inner, name="conv2")(y)
        y = nn.relu6(norm(name="bn2")(y, train))
        y = norm(name="bn3")(conv(self.features, (1, 1), name="conv3")(y), train)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """MobileNetV2 for images.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns pooled features.
      stages: rows of Table 2.
      stem_width, last_width: channels of the first and of the last convolution.
      dropout: dropout rate before the classifier.
      bn_groups: number of parts of the batch that BatchNorm normalizes separately in training.
      partial_bn: only the stem's BatchNorm uses batch statistics in training.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    stages: tuple[tuple[int, int, int, int], ...] = STAGES
    stem_width: int = 32
    last_width: int = 1280
    dropout: float = 0.2
    bn_groups: int = 1
    partial_bn: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: jax.Array, train: bool = False, before_block: BeforeBlock | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images [B, H, W, C] to logits float32 [B, K] and endpoints (stem, stage1-7, pre_logits [B,
        D]). `before_block`: see `vidjax.models.image.resnet`; it is called for the blocks with a shortcut."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        norm = partial(BatchNorm, groups=self.bn_groups, param_dtype=self.param_dtype)
        x = Conv(self.stem_width, (3, 3), 2, 1, name="stem_conv", **types)(image)
        x = nn.relu6(norm(name="stem_bn")(x, train))
        endpoints = {"stem": x}
        train_blocks = train and not self.partial_bn
        for i, (expand, width, blocks, stride) in enumerate(self.stages, 1):
            for j in range(blocks):
                name, step = f"stage{i}_block{j}", stride if j == 0 else 1
                block = InvertedResidual(width, expand, step, self.bn_groups, name=name, **types)
                branch = None
                if before_block and step == 1 and x.shape[-1] == width:  # a shortcut to go around
                    x, branch = before_block(name, x)
                x = block(x, train_blocks, branch)
            endpoints[f"stage{i}"] = x
        x = Conv(self.last_width, (1, 1), name="last_conv", **types)(x)
        x = nn.relu6(norm(name="last_bn")(x, train_blocks))
        x = endpoints["pre_logits"] = x.astype(jnp.float32).mean((1, 2))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints


register_model(
    ModelSpec(
        name="mobilenet_v2",
        family="mobilenet",
        module=MobileNetV2,
        preset={},
        tiny=dict(stages=((1, 4, 1, 1), (2, 6, 2, 2), (3, 8, 1, 2)), stem_width=4, last_width=16),
        input_shape=(224, 224, 3),
        tiny_input_shape=(32, 32, 3),
        paper="MobileNetV2: Inverted Residuals and Linear Bottlenecks",
        year=2018,
        arxiv="1801.04381",
        temporal="none: an image model",
        order_aware=False,
        num_classes=1000,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        params=3_504_872,
        gmacs=0.301,
        results=(Result("ImageNet", 71.878, 90.286, "1x1", "torchvision model zoo"),),
        weights="torchvision.models.mobilenet_v2, IMAGENET1K_V1",
        licence="BSD-3-Clause",
    )
)
