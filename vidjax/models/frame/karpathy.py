"""The four temporal fusion networks of Karpathy et al., and three small ones from lectures.

Paper: Karpathy et al., "Large-scale Video Classification with Convolutional Neural Networks", CVPR 2014,
Figure 1, section 3.1 and Table 1. Input: video [B, T, 170, 170, 3], pixels less 117. In the paper's shorthand
C(96, 11, 3)-N-P-C(256, 5, 1)-N-P-C(384, 3, 1)-C(384, 3, 1)-C(256, 3, 1)-P-FC(4096)-FC(4096), with
N local response normalization (k 2, n 5, alpha 1e-4, beta 0.5) and P maxima over 2x2.

  single frame  the middle frame, T // 2.
  early fusion  the first filters span all T = 10 frames.
  late fusion   two towers with the same weights on the first and the last of the frames, 15 apart, that meet
                in the first fully connected layer.
  slow fusion   the first filters span 4 of 10 frames with stride 2, those of the next two layers 2 frames
  each;
                later layers are spatial.

Not specified in the paper: the first convolution is not padded, the others keep the size; dropout follows
both hidden layers, as in Krizhevsky's network. The lectures' networks are on clips of 20
frames of 64x64: convolution 3, maxima over 4, convolution 3, average; 12 and 24 channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import local_response_norm
from vidjax.layers.pool import max_pool
from vidjax.models.frame.frame_model import Output
from vidjax.registry import KINETICS_MEAN, KINETICS_STD, ModelSpec, Result, register_model

# name, window, stride, padding, normalized, pooled
LAYERS = (
    ("stem_conv", 11, 3, 0, True, True),
    ("conv2", 5, 1, 2, True, True),
    ("conv3", 3, 1, 1, False, False),
    ("conv4", 3, 1, 1, False, False),
    ("conv5", 3, 1, 1, False, True),
)


class SingleFrame(nn.Module):
    """Classifies the middle frame, T // 2. Subclasses fuse frames.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the last hidden layer.
      widths: channels of the five convolutions.
      hidden: units of both hidden layers.
      dropout: rate after each hidden layer.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    hidden: int = 4096
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints.

        Endpoints are stem, stage1-4 (outputs of convolutions 2 to 5) and pre_logits [B, hidden].
        """
        x, endpoints = self.towers(video)
        x = x.reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x))
            features, x = x, nn.Dropout(self.dropout, deterministic=not train)(x)
        endpoints["pre_logits"] = features.astype(jnp.float32)
        if not self.num_classes:
            return endpoints["pre_logits"], endpoints
        x = x.astype(jnp.float32)
        return nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x), endpoints

    def towers(self, video: jax.Array) -> Output:
        """Applies the convolutions to the frames that the model uses."""
        return self.convolutions(video[:, video.shape[1] // 2])

    def convolutions(self, x: jax.Array, time: tuple[int, ...] = ()) -> Output:
        """Applies the five convolutions to images [B, H, W, C] or clips [B, T, H, W, C].

        `time` lists (kernel size, stride) in time of the first layers, flattened; the others have 1 and 1.
        """
        endpoints = {}
        for i, (width, (name, window, stride, pad, norm, pool)) in enumerate(zip(self.widths, LAYERS)):
            windows, strides, pads, two = (window,) * 2, (stride,) * 2, (pad,) * 2, (2, 2)
            if time:
                window, stride = time[2 * i : 2 * i + 2] or (1, 1)
                windows, strides, pads, two = (window, *windows), (stride, *strides), (0, *pads), (1, *two)
            x = Conv(
                width,
                windows,
                strides=strides,
                padding=pads,
                use_bias=True,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=name,
            )(x)
            x = nn.relu(x)
            if norm:
                x = local_response_norm(x, 5, alpha=5 * 1e-4, beta=0.5, k=2.0)
            if pool:
                x = max_pool(x, two, two)
            endpoints[f"stage{i}" if i else "stem"] = x
        return x, endpoints


class EarlyFusion(SingleFrame):
    """The first convolution spans all frames, which are stacked in its channels."""

    def towers(self, video: jax.Array) -> Output:
        b, t, h, w, c = video.shape
        return self.convolutions(video.transpose(0, 2, 3, 1, 4).reshape(b, h, w, t * c))


class LateFusion(SingleFrame):
    """Two towers, on the first frame and on the last; endpoints are [B, 2, ...]."""

    def towers(self, video: jax.Array) -> Output:
        pair = jnp.stack([video[:, 0], video[:, -1]], axis=1)
        _, endpoints = self.convolutions(pair.reshape(-1, *pair.shape[2:]))
        endpoints = {k: x.reshape(-1, 2, *x.shape[1:]) for k, x in endpoints.items()}
        return endpoints["stage4"], endpoints


class SlowFusion(SingleFrame):
    """Convolutions whose temporal extent grows with depth.

    Attributes:
      time: temporal kernel size and stride of each of the first layers, flattened.
    """

    time: tuple[int, ...] = (4, 2, 2, 2, 2, 2)

    def towers(self, video: jax.Array) -> Output:
        return self.convolutions(video, self.time)


class LectureLateFusion(nn.Module):
    """2D convolutions on each frame, averaged at the end.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the average.
      widths: channels of the two convolutions.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    widths: tuple[int, int] = (12, 24)
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    TIME = (1, 1)  # windows of convolutions and pooling in time

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints: stem (convolution), stage1
        (pooling), stage2 (convolution) and pre_logits [B, D]."""
        window, step = self.TIME
        conv = lambda width, name: Conv(  # noqa: E731
            width,
            (window, 3, 3),
            padding="SAME",
            use_bias=True,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
        endpoints = {}
        x = endpoints["stem"] = nn.relu(conv(self.widths[0], "stem_conv")(self.arrange(video)))
        x = endpoints["stage1"] = max_pool(x, (step, 4, 4), (step, 4, 4))
        x = endpoints["stage2"] = nn.relu(conv(self.widths[1], "conv2")(x))
        x = endpoints["pre_logits"] = x.astype(jnp.float32).mean((1, 2, 3))
        if self.num_classes:
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints

    def arrange(self, video: jax.Array) -> jax.Array:
        """Returns the input of the first convolution."""
        return video


class LectureEarlyFusion(LectureLateFusion):
    """2D convolutions on all frames, stacked in the channels."""

    def arrange(self, video: jax.Array) -> jax.Array:
        b, t, h, w, c = video.shape
        return video.transpose(0, 2, 3, 1, 4).reshape(b, 1, h, w, t * c)


class LectureConv3D(LectureLateFusion):
    """3D convolutions."""

    TIME = (3, 4)


_TABLE = "CVPR 2014, Table 1"
_TINY = dict(widths=(8, 8, 8, 8, 8), hidden=16)
# Class, clip and temporal mechanism; hit@1 and hit@5 per video in percent (Table 1); the tiny preset.
PRESETS = {
    "karpathy_single_frame": dict(
        module=SingleFrame,
        frames=1,
        stride=1,
        temporal="none: the middle frame",
        order_aware=False,
        hit1=59.3,
        hit5=77.7,
        tiny_frames=1,
        tiny_fields={},
    ),
    "karpathy_early_fusion": dict(
        module=EarlyFusion,
        frames=10,
        stride=1,
        temporal="first convolution spans all frames",
        order_aware=True,
        hit1=57.7,
        hit5=76.8,
        tiny_frames=4,
        tiny_fields={},
    ),
    "karpathy_late_fusion": dict(
        module=LateFusion,
        frames=2,
        stride=15,
        temporal="two towers joined in the first fully connected layer",
        order_aware=True,
        hit1=59.3,
        hit5=78.7,
        tiny_frames=4,
        tiny_fields={},
    ),
    "karpathy_slow_fusion": dict(
        module=SlowFusion,
        frames=10,
        stride=1,
        temporal="windows in time in three convolutions",
        order_aware=True,
        hit1=60.9,
        hit5=80.2,
        tiny_frames=8,
        tiny_fields=dict(time=(2, 2, 2, 2, 2, 2)),
    ),
}

for _name, _preset in PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            family="karpathy",
            module=_preset["module"],
            preset={},
            tiny=_TINY | _preset["tiny_fields"],
            input_shape=(_preset["frames"], 170, 170, 3),
            tiny_input_shape=(_preset["tiny_frames"], 48, 48, 3),
            num_classes=487,
            paper="Large-scale Video Classification with Convolutional Neural Networks",
            year=2014,
            arxiv="",
            temporal=_preset["temporal"],
            order_aware=_preset["order_aware"],
            stride=_preset["stride"],
            mean=(117 / 255,) * 3,
            std=(1 / 255,) * 3,
            results=(Result("Sports-1M", _preset["hit1"], _preset["hit5"], "20x4", _TABLE),),
        )
    )

for _name, _module, _time, _order in (
    ("lecture_late_fusion", LectureLateFusion, "average of frame features", False),
    ("lecture_early_fusion", LectureEarlyFusion, "frames stacked in the first convolution's channels", True),
    ("lecture_conv3d", LectureConv3D, "3D convolutions", True),
):
    register_model(
        ModelSpec(
            name=_name,
            family="karpathy",
            module=_module,
            preset={},
            tiny=dict(widths=(4, 8)),
            input_shape=(20, 64, 64, 3),
            tiny_input_shape=(4, 16, 16, 3),
            num_classes=10,
            paper="Large-scale Video Classification with Convolutional Neural Networks",
            year=2014,
            arxiv="",
            temporal=_time,
            order_aware=_order,
            mean=KINETICS_MEAN,
            std=KINETICS_STD,
        )
    )
