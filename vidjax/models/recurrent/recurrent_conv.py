"""Recurrent convolutional networks: convolutional RNNs on several levels of an image CNN.

Paper: Ballas et al., "Delving Deeper into Convolutional Networks for Learning Video Representations", ICLR
2016, arXiv:1511.06432. GRU-RCN: equations 5-8 on the maps of VGG-16 after pool2, pool3, pool4, pool5 and fc7,
with 64, 128, 256, 256 and 512 channels and 3x3 windows (section 3, section 5.1).
Input: video [B, T, H, W, C], T = 10 in the paper.

  plain          h_t = tanh(W * x_t + U * h_{t-1} + b), the convolutional form of a simple RNN
  GRU            z, r = sigmoid(W * x_t + U * h_{t-1} + b);  n = tanh(W_n * x_t + U_n * (r h_{t-1}) + b_n);
                 h_t = (1 - z) h_{t-1} + z n
  stacked        x_t also has the level below, h_t^{l-1}, max-pooled to this level's size (equations 9-11)
  bidirectional  each level also runs backward, with separate weights; both final states are classified

The last state of each level, averaged over space, has a classifier with dropout of its own; the model's
logits are the log of the mean of their probabilities ("averaged to get the final decision", section 5.1).
Deviation from the paper: fc7 has no spatial extent, so its kernel is 1x1; a 3x3 kernel would only use its
center.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.errors import UserError, unknown
from vidjax.layers.conv import Conv, conv
from vidjax.layers.pool import max_pool
from vidjax.layers.recurrent import log_mean_probability, scan_time
from vidjax.models.frame.frame_model import FrameModel, Output
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model


class ConvRNN(nn.Module):
    """Convolutional simple RNN: [B, T, H, W, C] and a state -> [B, T, H, W, width] and the last state.

    Attributes:
      width: channels of the state.
      window: spatial kernel size of both convolutions.
      truncate, reverse: see `scan_time`.
      dtype: of the convolutions; the state is float32.
      param_dtype: of the parameters.
    """

    width: int
    window: int = 3
    truncate: int | None = None
    reverse: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    gates = 1

    @nn.compact
    def __call__(self, x: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x [B, T, H, W, C], state [B, H, W, width] -> [B, T, H, W, width], state; both float32."""
        b, t = x.shape[:2]
        inputs = Conv(
            self.gates * self.width,
            (self.window, self.window),
            padding=self.window // 2,
            use_bias=True,
            kernel_init=nn.initializers.glorot_normal(),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="input",
        )(x.reshape(b * t, *x.shape[2:]))
        inputs = inputs.reshape(b, t, *inputs.shape[1:]).astype(jnp.float32)
        shape = (self.window, self.window, self.width, self.gates * self.width)
        kernel = self.param("recurrent", nn.initializers.orthogonal(), shape, self.param_dtype)
        step = self.make_step(kernel.astype(self.dtype))
        state, y = scan_time(step, state, inputs, self.truncate, self.reverse)
        return y, state

    def make_step(self, kernel: jax.Array):
        """Returns the step of the scan."""

        def step(h, x):
            h = jnp.tanh(x + self.convolve(h, kernel))
            return h, h

        return step

    def convolve(self, h: jax.Array, kernel: jax.Array) -> jax.Array:
        """Convolves the state; returns float32."""
        return conv(h.astype(kernel.dtype), kernel, padding=self.window // 2).astype(jnp.float32)


class ConvGRU(ConvRNN):
    """Convolutional GRU; kernel channels are in the order z, r, n."""

    gates = 3

    def make_step(self, kernel: jax.Array):
        gates, new = kernel[..., : 2 * self.width], kernel[..., 2 * self.width :]

        def step(h, x):
            zr = nn.sigmoid(x[..., : 2 * self.width] + self.convolve(h, gates))
            z, r = jnp.split(zr, 2, axis=-1)
            n = jnp.tanh(x[..., 2 * self.width :] + self.convolve(r * h, new))
            h = (1 - z) * h + z * n
            return h, h

        return step


class Classifiers(nn.Module):
    """Dropout and a linear layer for each level: {name: [B, D]} -> {name: [B, K]}."""

    num_classes: int
    dropout: float
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, features: dict[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        logits = {}
        for name, x in features.items():
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"{name}_drop")(x)
            logits[name] = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name=name)(x)
        return logits


class RecurrentConvNet(FrameModel):
    """Recurrent convolutional network with convolutional simple RNNs.

    Attributes:
      levels: (endpoint of the trunk, channels of its recurrent layer), from low to high.
      stacked, bidirectional: see the module docstring.
      truncate: stop the gradient through the state every `truncate` steps; never if None.
    """

    trunk: str = "vgg16"
    levels: tuple[tuple[str, int], ...] = (
        ("pool2", 64),
        ("pool3", 128),
        ("pool4", 256),
        ("pool5", 256),
        ("fc7", 512),
    )
    stacked: bool = False
    bidirectional: bool = False
    truncate: int | None = None

    recurrent = ConvRNN  # the class of a level

    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K]; endpoints are the trunk's and rcn_LEVEL, [B,
        T, ..] each, logits_LEVEL [B, K], and pre_logits [B, D], the averaged last states of all levels."""
        return self.run(video, None, train)[0]

    @nn.nowrap
    def init_state(self, batch_size: int, frame_shape: tuple[int, ...]) -> dict[str, jax.Array]:
        """Returns the initial state of `step` for frames (H, W, C); raises UserError for a bidirectional
        model."""
        self._check_streaming()
        frame = jax.ShapeDtypeStruct((1, 1, *frame_shape), jnp.float32)
        (_, endpoints), _ = jax.eval_shape(self.init_with_output, jax.random.PRNGKey(0), frame)
        shapes = {name: endpoints[f"rcn_{name}"].shape[2:] for name, _ in self.levels}
        return {name: jnp.zeros((batch_size, *shape)) for name, shape in shapes.items()}

    def step(self, state: dict[str, jax.Array], frame: jax.Array) -> tuple[Output, dict[str, jax.Array]]:
        """Processes the next frame [B, H, W, C], or chunk of frames [B, t, H, W, C].

        Returns:
          Logits and endpoints of all frames so far, equal to those of `__call__`, and the new state.
        """
        self._check_streaming()
        return self.run(frame if frame.ndim == 5 else frame[:, None], state, train=False)

    @nn.nowrap
    def _check_streaming(self) -> None:
        if self.bidirectional:
            raise UserError("a bidirectional model cannot be streamed; set bidirectional=False")

    @nn.compact
    def run(self, video: jax.Array, state: dict | None, train: bool) -> tuple[Output, dict[str, jax.Array]]:
        """Runs the model on frames that follow `state`."""
        b, t = video.shape[:2]
        _, endpoints = self.image_features(video.reshape(b * t, *video.shape[2:]), train)
        endpoints = {k: v.reshape(b, t, *v.shape[1:]) for k, v in endpoints.items()}
        below: list[jax.Array | None] = [None] * (2 if self.bidirectional else 1)
        after, features = {}, {}
        for name, width in self.levels:
            if name not in endpoints:
                raise unknown(f"endpoint of {self.trunk}", name, endpoints)
            x = endpoints[name]
            window = 1 if x.ndim == 3 else 3
            x = x.reshape(b, t, *(x.shape[2:-1] or (1, 1)), -1)
            start = jnp.zeros((b, *x.shape[2:4], width)) if state is None else state[name]
            both = [self._level(name, width, window, x, y, start, back) for back, y in enumerate(below)]
            if self.stacked:
                below = [y for y, _ in both]
            endpoints[f"rcn_{name}"] = jnp.concatenate([y for y, _ in both], axis=-1)
            after[name] = both[0][1]
            features[name] = jnp.concatenate([h.mean((1, 2)) for _, h in both], axis=-1)
        endpoints["pre_logits"] = x = jnp.concatenate([*features.values()], axis=-1)
        if self.num_classes:
            head = Classifiers(self.num_classes, self.dropout, self.param_dtype, name="head")
            logits = head(features, train)
            endpoints |= {f"logits_{name}": y for name, y in logits.items()}
            x = log_mean_probability(jnp.stack([*logits.values()]), axis=0)
        return (x, endpoints), after

    def _level(self, name, width, window, x, below, start, back):
        if below is not None:
            below = _shrink(below, x.shape[2:4]).astype(x.dtype)
            x = jnp.concatenate([x, below], axis=-1)
        layer = self.recurrent(
            width,
            window=window,
            truncate=self.truncate,
            reverse=bool(back),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=f"rcn_{name}_backward" if back else f"rcn_{name}",
        )
        return layer(x, start)


def _shrink(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[B, T, H, W, C] to [B, T, *size, C] by max pooling; windows do not overlap."""
    b, t, h, w, c = maps.shape
    window = (h // size[0], w // size[1])
    pooled = max_pool(maps.reshape(b * t, h, w, c), window, window)
    return pooled[:, : size[0], : size[1]].reshape(b, t, *size, c)


class GRURecurrentConvNet(RecurrentConvNet):
    """GRU-RCN."""

    recurrent = ConvGRU


# Class, its fields, temporal mechanism, and top-1 on split 1 of UCF101 (Table 1, RGB).
_VARIANTS = {
    "rcn_vgg16": dict(
        module=RecurrentConvNet,
        fields={},
        temporal="convolutional RNNs on the feature maps of five levels",
        top1=None,
    ),
    "gru_rcn_vgg16": dict(
        module=GRURecurrentConvNet,
        fields={},
        temporal="convolutional GRUs on the feature maps of five levels",
        top1=79.9,
    ),
    "stacked_gru_rcn_vgg16": dict(
        module=GRURecurrentConvNet,
        fields=dict(stacked=True),
        temporal="stacked convolutional GRUs on five levels",
        top1=None,
    ),
    "bi_gru_rcn_vgg16": dict(
        module=GRURecurrentConvNet,
        fields=dict(bidirectional=True),
        temporal="bidirectional convolutional GRUs on five levels",
        top1=80.7,
    ),
}

for _name, _preset in _VARIANTS.items():
    _source = "Ballas et al., arXiv:1511.06432, table 1: RGB, split 1"
    register_model(
        ModelSpec(
            name=_name,
            family="recurrent_conv",
            module=_preset["module"],
            preset=dict(dropout=0.7, **_preset["fields"]),
            tiny=dict(
                trunk_options=dict(tiny=True),
                levels=(("pool3", 3), ("fc7", 4)),
                dropout=0.0,
            ),
            input_shape=(10, 224, 224, 3),
            tiny_input_shape=(4, 32, 32, 3),
            paper="Delving Deeper into Convolutional Networks for Learning Video Representations",
            year=2016,
            arxiv="1511.06432",
            temporal=_preset["temporal"],
            order_aware=True,
            num_classes=101,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            results=(Result("UCF101", _preset["top1"], None, "25x10", _source),) if _preset["top1"] else (),
        )
    )
