"""Residual image networks, the 2D backbone of most video models.

Paper: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, Table 1.
Input: images [B, H, W, C]. Deviation from the paper: in a bottleneck the stride sits on the 3x3 convolution,
as in torchvision ("v1.5"), whose parameters these are.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.layers.pool import max_pool
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, register_model

# Blocks per stage; parameters at 1000 classes and GMACs at 224x224 as torchvision has them.
PRESETS = {
    "resnet18": dict(stage_sizes=(2, 2, 2, 2), bottleneck=False, params=11_689_512, gmacs=1.814),
    "resnet34": dict(stage_sizes=(3, 4, 6, 3), bottleneck=False, params=21_797_672, gmacs=3.664),
    "resnet50": dict(stage_sizes=(3, 4, 6, 3), bottleneck=True, params=25_557_032, gmacs=4.089),
    "resnet101": dict(stage_sizes=(3, 4, 23, 3), bottleneck=True, params=44_549_160, gmacs=7.801),
}

# Hook into the blocks of a backbone: maps the name and the input of a residual block to the inputs of its
# shortcut and of its residual branch.
BeforeBlock = Callable[[str, jax.Array], tuple[jax.Array, jax.Array]]


class Block(nn.Module):
    """Two 3x3 convolutions (bottleneck: 1x1, 3x3 and 1x1 to four times the width) and a shortcut."""

    width: int
    stride: int
    bottleneck: bool
    bn_groups: int
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, branch: jax.Array | None = None) -> jax.Array:
        """Maps [B, H, W, C] to [B, H/stride, W/stride, width (x4)]. The residual branch takes `branch` if
        given, else `x` as the shortcut does."""
        conv = partial(Conv, dtype=self.dtype, param_dtype=self.param_dtype)
        norm = partial(BatchNorm, groups=self.bn_groups, param_dtype=self.param_dtype)
        out = self.width * (4 if self.bottleneck else 1)
        y = x if branch is None else branch
        if self.bottleneck:
            y = conv(self.width, (1, 1), name="conv1")(y)
            y = nn.relu(norm(name="bn1")(y, train))
            y = conv(self.width, (3, 3), strides=self.stride, padding=1, name="conv2")(y)
            y = nn.relu(norm(name="bn2")(y, train))
            y = norm(name="bn3")(conv(out, (1, 1), name="conv3")(y), train)
        else:
            y = conv(self.width, (3, 3), strides=self.stride, padding=1, name="conv1")(y)
            y = nn.relu(norm(name="bn1")(y, train))
            y = norm(name="bn2")(conv(out, (3, 3), padding=1, name="conv2")(y), train)
        if self.stride != 1 or x.shape[-1] != out:
            x = norm(name="down_bn")(conv(out, (1, 1), strides=self.stride, name="down_conv")(x), train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet for images.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns pooled features.
      stage_sizes: blocks in each of the four stages.
      bottleneck: bottleneck blocks (50 layers and more) in place of basic ones.
      width: channels of the stem and of the first stage's 3x3 convolutions; doubled by each stage.
      bn_groups: number of parts of the batch that BatchNorm normalizes separately in training.
      partial_bn: only the stem's BatchNorm uses batch statistics in training.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    bottleneck: bool
    width: int = 64
    bn_groups: int = 1
    partial_bn: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: jax.Array, train: bool = False, before_block: BeforeBlock | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images [B, H, W, C] to logits float32 [B, K] and endpoints (stem, stage1-4, pre_logits [B,
        D])."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = Conv(self.width, (7, 7), strides=2, padding=3, name="stem_conv", **types)(image)
        x = BatchNorm(groups=self.bn_groups, param_dtype=self.param_dtype, name="stem_bn")(x, train)
        x = max_pool(nn.relu(x), 3, 2, 1)
        endpoints = {"stem": x}
        train_blocks = train and not self.partial_bn
        for i, blocks in enumerate(self.stage_sizes):
            for j in range(blocks):
                name = f"stage{i + 1}_block{j}"
                x, branch = before_block(name, x) if before_block else (x, None)
                x = Block(
                    self.width * 2**i,
                    stride=2 if i > 0 and j == 0 else 1,
                    bottleneck=self.bottleneck,
                    bn_groups=self.bn_groups,
                    name=name,
                    **types,
                )(x, train_blocks, branch)
            endpoints[f"stage{i + 1}"] = x
        x = x.astype(jnp.float32).mean((1, 2))
        endpoints["pre_logits"] = x
        if self.num_classes:
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints


for _name, _preset in PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            family="resnet",
            module=ResNet,
            preset=dict(stage_sizes=_preset["stage_sizes"], bottleneck=_preset["bottleneck"]),
            tiny=dict(stage_sizes=(1, 1, 1, 1), width=8),
            input_shape=(224, 224, 3),
            tiny_input_shape=(32, 32, 3),
            paper="Deep Residual Learning for Image Recognition",
            year=2016,
            arxiv="1512.03385",
            temporal="none: an image model",
            order_aware=False,
            num_classes=1000,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            weights="torchvision",
            licence="BSD-3-Clause",
        )
    )
