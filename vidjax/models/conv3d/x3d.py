"""X3D: a family of video networks, expanded from a tiny image network one axis at a time.

"X3D: Expanding Architectures for Efficient Video Recognition", Feichtenhofer, CVPR 2020, arXiv:2004.04730.
Table 1 (the network) and table 3 (the instances); the expansion is in `x3d_expansion`. Input 13x160x160 for
X3D-S. A mobile bottleneck whose 3x3x3 convolution is channel-wise, squeeze-and-excitation in every second
block, and no pooling in time before the head. X3D-XS, S and M are one network on inputs of three sizes.
Deviations: the head averages over a clip of any size before its linear layers, where the paper's test slides
them over a larger crop; the shortcut of a block that keeps its channels has no norm (as published).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.models.conv3d.resnet3d import GREY, classify
from vidjax.models.conv3d.x3d_expansion import HEAD_WIDTH, Expansion, family, round_channels
from vidjax.registry import ModelSpec, Result, register_model


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means over the clip (Hu et al., arXiv:1709.01507)."""

    hidden: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, H, W, C] to the same."""
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        gate = x.mean((1, 2, 3), dtype=jnp.float32)
        gate = nn.relu(dense(self.hidden, name="fc1")(gate))
        gate = nn.sigmoid(dense(x.shape[-1], name="fc2")(gate))
        return x * gate.reshape(-1, 1, 1, 1, x.shape[-1])


class Block(nn.Module):
    """1x1x1, channel-wise 3x3x3 and 1x1x1 convolutions around a shortcut (table 1).

    Attributes:
      features: channels out.
      inner: channels in between.
      stride: step in height and width.
      squeeze: whether there is squeeze-and-excitation.
      zero_init: initialize the residual branch to zero.
    """

    features: int
    inner: int
    stride: int = 1
    squeeze: bool = True
    zero_init: bool = False
    bn_groups: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, T, H, W, C] to [B, T, H', W', features]."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv, norm = partial(Conv, **types), partial(BatchNorm, groups=self.bn_groups, **types)
        strides = (1, self.stride, self.stride)

        y = conv(self.inner, (1, 1, 1), name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train))
        y = conv(self.inner, (3, 3, 3), strides, 1, feature_group_count=self.inner, name="conv2")(y)
        y = norm(name="bn2")(y, train)
        if self.squeeze:
            y = SqueezeExcite(round_channels(self.inner / 16), name="se", **types)(y)
        y = conv(self.features, (1, 1, 1), name="conv3")(nn.swish(y))
        scale = nn.initializers.constant(0.0 if self.zero_init else 1.0)
        y = norm(scale_init=scale, name="bn3")(y, train)
        if self.stride > 1 or x.shape[-1] != self.features:
            channels = x.shape[-1]
            x = conv(self.features, (1, 1, 1), strides, name="down_conv")(x)
            if channels != self.features:
                x = norm(name="down_bn")(x, train)
        return nn.relu(x + y)


class X3D(nn.Module):
    """The network of table 1, expanded.

    Attributes:
      num_classes: number of classes K; 0 omits the last layer and returns its input.
      stage_sizes: blocks per stage.
      widths: channels of the stages, and of the stem as of the first.
      bottleneck: factor from a stage's channels to those inside its blocks.
      head_width: channels of the linear layer before the last.
      zero_init: initialize every residual branch to zero.
      dropout: dropout rate before the last layer.
      bn_groups, dtype, param_dtype: see `ResNet3D`.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: float
    head_width: int = HEAD_WIDTH
    zero_init: bool = False
    dropout: float = 0.0
    bn_groups: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classifies `video` [B, T, H, W, C]; logits [B, K] and the endpoints stem, stage1.., pre_logits."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = partial(Conv, **types)
        norm = partial(BatchNorm, groups=self.bn_groups, **types)

        x = conv(self.widths[0], (1, 3, 3), (1, 2, 2), (0, 1, 1), name="stem_conv")(video)
        time = dict(padding=(2, 0, 0), feature_group_count=self.widths[0])
        x = conv(self.widths[0], (5, 1, 1), name="stem_conv_time", **time)(x)
        x = nn.relu(norm(name="stem_bn")(x, train))
        endpoints = {"stem": x}

        for i, (blocks, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            inner = int(width * self.bottleneck)
            for j in range(blocks):
                x = Block(
                    width,
                    inner,
                    stride=2 if j == 0 else 1,
                    squeeze=j % 2 == 0,
                    zero_init=self.zero_init,
                    bn_groups=self.bn_groups,
                    name=f"stage{i}_block{j}",
                    **types,
                )(x, train)
            endpoints[f"stage{i}"] = x

        x = conv(inner, (1, 1, 1), name="final_conv")(x)
        x = nn.relu(norm(name="final_bn")(x, train))
        x = x.astype(jnp.float32).mean((1, 2, 3))
        dense = partial(nn.Dense, param_dtype=self.param_dtype)
        x = nn.relu(dense(self.head_width, use_bias=False, name="fc")(x))
        endpoints["pre_logits"] = x
        return classify(x, self.num_classes, self.dropout, train, self.param_dtype), endpoints


def network(point: Expansion) -> dict:
    """The fields of `X3D` at a point of the expansion."""
    return dict(stage_sizes=point.stage_sizes, widths=point.widths, bottleneck=point.bottleneck)


# Published figures: top-1 of 30 views from PySlowFast's model zoo, top-5 from pytorchvideo's.
PRESETS = {
    "x3d_xs": dict(params=3_794_274, gmacs=0.605, top1=69.5, top5=88.63),
    "x3d_s": dict(params=3_794_274, gmacs=1.963, top1=73.5, top5=91.27),
    "x3d_m": dict(params=3_794_274, gmacs=4.732, top1=76.2, top5=92.72),
    "x3d_l": dict(params=6_153_384, gmacs=18.37, top1=77.5, top5=93.31),
}

for _name, _point in family().items():
    _published = PRESETS[_name]
    _source = f"PySlowFast and pytorchvideo model zoos, {_point.frames} frames x stride {_point.stride}"
    register_model(
        ModelSpec(
            name=_name,
            family="x3d",
            module=X3D,
            preset=network(_point),
            tiny=dict(stage_sizes=(2, 1), widths=(8, 16), bottleneck=1.5, head_width=16),
            input_shape=(_point.frames, _point.size, _point.size, 3),
            tiny_input_shape=(4, 16, 16, 3),
            paper="X3D: Expanding Architectures for Efficient Video Recognition",
            year=2020,
            arxiv="2004.04730",
            temporal="channel-wise 3D convolutions",
            order_aware=True,
            stride=_point.stride,
            params=_published["params"],
            gmacs=_published["gmacs"],
            results=(Result("Kinetics-400", _published["top1"], _published["top5"], "10x3", _source),),
            weights=f"pytorchvideo model zoo, {_name.upper()}",
            licence="Apache-2.0",
            **GREY,
        )
    )
