"""Temporal fusion on modern backbones: single frame, late, early and slow fusion.

Paper: Karpathy et al., "Large-scale Video Classification with Convolutional Neural Networks", CVPR 2014,
Figure 1, here on ResNets (arXiv:1512.03385) and EfficientNet-Lite0 in place of the paper's AlexNet, and for
slow fusion a plain network of 3D convolutions with BatchNorm.
Input: video [B, T, H, W, C].

  single frame  one frame of the clip; independent of motion.
  late fusion   a 2D backbone on every frame, features fused at the end: by average, maximum, attention or
    VLAD
                (independent of frame order), or by an MLP on their concatenation (order-aware).
  early fusion  all frames stacked in the channels of the first convolution.
  slow fusion   strided 3D convolutions, whose temporal receptive field grows with depth.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.layers.pool import max_over
from vidjax.models.frame.frame_model import FrameModel, Output
from vidjax.models.image import efficientnet_lite
from vidjax.registry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    KINETICS_MEAN,
    KINETICS_STD,
    ModelSpec,
    register_model,
)


class SingleFrame(FrameModel):
    """Classifies the middle frame, T // 2."""

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and the backbone's endpoints."""
        return self.classify(*self.image_features(video[:, video.shape[1] // 2], train), train)


class EarlyFusion(FrameModel):
    """Stacks the frames in the channels of the trunk's first convolution."""

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and the backbone's endpoints."""
        b, t, h, w, c = video.shape
        stacked = video.transpose(0, 2, 3, 1, 4).reshape(b, h, w, t * c)
        return self.classify(*self.image_features(stacked, train), train)


class LateFusion(FrameModel):
    """Averages the features of all frames; subclasses fuse them differently."""

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K]; endpoints are the trunk's, [B, T, ...] each,
        and frame_features [B, T, D]."""
        b, t = video.shape[:2]
        features, endpoints = self.image_features(video.reshape(b * t, *video.shape[2:]), train)
        endpoints = {k: v.reshape(b, t, *v.shape[1:]) for k, v in endpoints.items()}
        features = endpoints["frame_features"] = features.reshape(b, t, -1)
        return self.classify(self.fuse(features, endpoints), endpoints, train)

    def fuse(self, features: jax.Array, endpoints: dict[str, jax.Array]) -> jax.Array:
        """Maps [B, T, D] to [B, D']."""
        return features.mean(1)


class LateFusionMax(LateFusion):
    """Takes the maximum over frames of every feature."""

    def fuse(self, features: jax.Array, endpoints: dict[str, jax.Array]) -> jax.Array:
        return max_over(features, 1)


class LateFusionAttention(LateFusion):
    """Weights frames by a softmax over time of a gated score (Ilse et al., arXiv:1802.04712, eq. 9)."""

    attention_width: int = 128

    def fuse(self, features: jax.Array, endpoints: dict[str, jax.Array]) -> jax.Array:
        def dense(name: str, n: int, **options: bool) -> nn.Dense:
            return nn.Dense(n, param_dtype=self.param_dtype, name=name, **options)

        gate = nn.sigmoid(dense("attention_gate", self.attention_width)(features))
        score = dense("attention_score", 1, use_bias=False)(
            gate * jnp.tanh(dense("attention_tanh", self.attention_width)(features))
        )
        weights = endpoints["frame_attention"] = nn.softmax(score, axis=1)  # [B, T, 1]
        return (weights * features).sum(1)


class LateFusionMLP(LateFusion):
    """Applies a hidden layer to the concatenated features of all frames; the weights fix T."""

    mlp_width: int = 512

    def fuse(self, features: jax.Array, endpoints: dict[str, jax.Array]) -> jax.Array:
        x = features.reshape(features.shape[0], -1)
        return nn.relu(nn.Dense(self.mlp_width, param_dtype=self.param_dtype, name="mlp")(x))


class VLAD(nn.Module):
    """NetVLAD: sums the residuals of descriptors to each of K centers (Arandjelovic et al.,
    arXiv:1511.07247).

    Attributes:
      clusters: K.
      alpha: sharpness of the initial assignment to centers, which is learned separately from them.
      param_dtype: of the parameters.
    """

    clusters: int
    alpha: float
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, N, D] to [B, D * K] of length one, equation 4."""
        x, shape = _unit(x), (x.shape[-1], self.clusters)
        centers = self.param("centres", nn.initializers.normal(shape[0] ** -0.5), shape, self.param_dtype)
        # Initialized to the distances to the centers, equation 3.
        kernel = self.param("kernel", lambda _: 2 * self.alpha * centers)
        bias = self.param("bias", lambda _: -self.alpha * jnp.square(centers).sum(0))
        share = nn.softmax(x @ kernel + bias.reshape(1, 1, -1), axis=-1)  # [B, N, K]
        vlad = x.swapaxes(1, 2) @ share - centers[None] * share.sum(1)[:, None]
        return _unit(_unit(vlad, 1).reshape(x.shape[0], -1))  # per center, then overall


class LateFusionVLAD(LateFusion):
    """`VLAD` of all frames, and of all positions as in ActionVLAD (Girdhar et al., arXiv:1704.02895,
    equation 2).

    Attributes:
      clusters, alpha: see `VLAD`.
      local: use the descriptors at every position of the backbone's last map; else one per frame.
    """

    clusters: int = 64
    alpha: float = 10.0
    local: bool = True

    def fuse(self, features: jax.Array, endpoints: dict[str, jax.Array]) -> jax.Array:
        if self.local:
            maps = [x for name, x in endpoints.items() if name.startswith("stage") or name == "tokens"]
            features = maps[-1].astype(jnp.float32)
        descriptors = features.reshape(features.shape[0], -1, features.shape[-1])
        return VLAD(self.clusters, self.alpha, self.param_dtype, name="vlad")(descriptors)


def _unit(x: jax.Array, axis: int = -1) -> jax.Array:
    """L2-normalizes `x` along `axis`."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis, keepdims=True) + 1e-12)


class SlowFusion(nn.Module):
    """A plain 3D CNN: strided 3x3x3 convolution, BatchNorm and ReLU, repeated; then the mean over T, H, W.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns pooled features.
      widths: channels of each convolution.
      strides: (time, height, width) of each convolution.
      dropout: dropout rate before the classifier.
      bn_groups, dtype, param_dtype: see `ResNet`.
    """

    num_classes: int
    widths: tuple[int, ...]
    strides: tuple[tuple[int, int, int], ...]
    dropout: float = 0.0
    bn_groups: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints (stage1.., pre_logits [B, D])."""
        x, endpoints = video, {}
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, (width, stride) in enumerate(zip(self.widths, self.strides, strict=True), 1):
            x = Conv(width, (3, 3, 3), strides=stride, padding=1, name=f"conv{i}", **types)(x)
            x = BatchNorm(groups=self.bn_groups, param_dtype=self.param_dtype, name=f"bn{i}")(x, train)
            x = endpoints[f"stage{i}"] = nn.relu(x)
        x = endpoints["pre_logits"] = x.astype(jnp.float32).mean((1, 2, 3))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints


_KARPATHY = dict(
    paper="Large-scale Video Classification with Convolutional Neural Networks",
    year=2014,
    arxiv="",
)
# Class, temporal mechanism and whether the order of frames matters, by name with {} for the backbone.
_VARIANTS = {
    "single_frame_{}": dict(module=SingleFrame, temporal="none: the middle frame", order_aware=False),
    "early_fusion_{}": dict(
        module=EarlyFusion, temporal="frames stacked in the first convolution's channels", order_aware=True
    ),
    "late_fusion_{}": dict(module=LateFusion, temporal="average of frame features", order_aware=False),
    "late_fusion_{}_max": dict(module=LateFusionMax, temporal="maximum of frame features", order_aware=False),
    "late_fusion_{}_attention": dict(
        module=LateFusionAttention, temporal="attention over frame features", order_aware=False
    ),
    "late_fusion_{}_vlad": dict(
        module=LateFusionVLAD, temporal="VLAD over all frames and positions", order_aware=False
    ),
    "late_fusion_{}_mlp": dict(
        module=LateFusionMLP, temporal="MLP on concatenated frame features", order_aware=True
    ),
}

_TRUNKS = {
    "resnet18": dict(variants=tuple(_VARIANTS), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "resnet50": dict(variants=tuple(_VARIANTS), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "efficientnet_lite0": dict(
        variants=("single_frame_{}", "late_fusion_{}"), mean=efficientnet_lite.MEAN, std=efficientnet_lite.STD
    ),
}

for _trunk, _own in _TRUNKS.items():
    for _name in _own["variants"]:
        _preset = _VARIANTS[_name]
        register_model(
            ModelSpec(
                name=_name.format(_trunk),
                family="fusion",
                module=_preset["module"],
                preset=dict(trunk=_trunk),
                tiny=dict(trunk_options=dict(tiny=True)),
                input_shape=(8, 224, 224, 3),
                tiny_input_shape=(4, 32, 32, 3),
                temporal=_preset["temporal"],
                order_aware=_preset["order_aware"],
                mean=_own["mean"],
                std=_own["std"],
                **_KARPATHY,
            )
        )

register_model(
    ModelSpec(
        name="slow_fusion_conv4",
        family="fusion",
        module=SlowFusion,
        preset=dict(widths=(16, 32, 64, 128), strides=((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))),
        tiny=dict(widths=(4, 8), strides=((1, 2, 2), (2, 2, 2))),
        input_shape=(16, 64, 64, 3),
        tiny_input_shape=(4, 16, 16, 3),
        temporal="3D convolutions",
        order_aware=True,
        mean=KINETICS_MEAN,
        std=KINETICS_STD,
        **_KARPATHY,
    )
)
