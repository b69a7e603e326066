"""MoViNets: mobile video networks, and their causal form for streaming.

"MoViNets: Mobile Video Networks for Efficient Video Recognition", Kondratyuk et al., CVPR 2021,
arXiv:2103.11511. Tables of appendix C (A0 to A5), section 3.2 (stream buffers, causal operations). Input
50x172x172 for A0, at 5 fps. As released by the authors: a base model convolves in space and time
at once, with swish; a stream model convolves in space and then causally in time ("(2+1)D"), with hard swish
and hard sigmoid, and its squeeze-and-excitation takes the running mean and the frame's own mean; from A3 on
it adds a positional encoding. Padding is TensorFlow's.
Not included: the ensembles (A6) and the architecture search.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.layers.pool import avg_pool
from vidjax.models.conv3d.resnet3d import classify
from vidjax.models.conv3d.x3d_expansion import round_channels
from vidjax.registry import ModelSpec, Result, register_model

State = dict[str, Any]
Output = tuple[jax.Array, dict[str, jax.Array]]
STRIDES = (2, 2, 2, 1, 2)  # in height and width, at the start of each stage


class Block(nn.Module):
    """An inverted bottleneck: expansion, depthwise convolution, gate, projection; scaled, around a shortcut.

    Attributes:
      features: output channels.
      inner: channels after the expansion.
      kernel: (frames, pixels) of the depthwise convolution.
      stride: step in height and width.
      conv, norm: constructors of convolutions and norms.
      drop: probability that a clip skips the block in training.
      alpha_init: initial scale (ReZero, arXiv:2003.04887); 0 is the identity.
      dense: constructor of linear layers.
    """

    features: int
    inner: int
    kernel: tuple[int, int]
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    dense: Callable[..., nn.Module]
    drop: float = 0.0
    alpha_init: float = 0.0

    act = staticmethod(nn.swish)
    gate = staticmethod(nn.sigmoid)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, state: State) -> tuple[jax.Array, State]:
        """Maps [B, T, H, W, C] to [B, T, H', W', features], and the state for the frames that follow."""
        y = self.act(self.norm(name="bn1")(self.conv(self.inner, (1, 1, 1), name="conv1")(x), train))
        y, state = self.windows(y, train, state)
        means, state = self.means(y, state)
        hidden = self.dense(round_channels(self.inner // 4 * means.shape[-1] // self.inner), name="se_fc1")
        scale = self.dense(self.inner, name="se_fc2")(self.act(hidden(means)))
        y = y * self.gate(scale)
        y = self.norm(name="bn3")(self.conv(self.features, (1, 1, 1), name="conv3")(y), train)
        alpha = self.param("alpha", nn.initializers.constant(self.alpha_init), (), jnp.float32)
        y = nn.Dropout(self.drop, broadcast_dims=(1, 2, 3, 4), deterministic=not train)(y)
        if self.stride > 1 or x.shape[-1] != self.features:
            if self.stride > 1:
                x = avg_pool(x, (1, 3, 3), (1, 2, 2), "SAME", count_include_pad=False)
            x = self.norm(name="down_bn")(self.conv(self.features, (1, 1, 1), name="down_conv")(x), train)
        return x + alpha.astype(y.dtype) * y, state

    def windows(self, x: jax.Array, train: bool, state: State) -> tuple[jax.Array, State]:
        """The channel-wise convolution with its norm and activation."""
        frames, pixels = self.kernel
        alone = dict(padding="SAME", feature_group_count=self.inner)
        strides = (1, self.stride, self.stride)
        x = self.conv(self.inner, (frames, pixels, pixels), strides, name="conv2", **alone)(x)
        return self.act(self.norm(name="bn2")(x, train)), state

    def means(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Returns the input of squeeze-and-excitation, [B, 1, 1, 1, C]."""
        return x.mean((1, 2, 3), keepdims=True, dtype=jnp.float32).astype(x.dtype), state


class StreamBlock(Block):
    """The causal block: a frame depends on the past only, through the state.

    Attributes:
      positional: add a positional encoding of the frame index to the means.
    """

    positional: bool = False

    act = staticmethod(nn.hard_swish)
    gate = staticmethod(lambda x: jnp.clip(0.2 * x + 0.5, 0.0, 1.0))

    def windows(self, x: jax.Array, train: bool, state: State) -> tuple[jax.Array, State]:
        """In space, then over the frames so far (equation 4: the buffer in front of the new frames)."""
        frames, pixels = self.kernel
        alone = dict(feature_group_count=self.inner)
        strides = (1, self.stride, self.stride)
        x = self.conv(self.inner, (1, pixels, pixels), strides, "SAME", name="conv2", **alone)(x)
        x = self.act(self.norm(name="bn2")(x, train))
        if frames > 1:
            x = jnp.concatenate([state["frames"], x], axis=1)
            state = state | {"frames": x[:, 1 - frames :]}
            x = self.conv(self.inner, (frames, 1, 1), name="conv2_time", **alone)(x)
            x = self.act(self.norm(name="bn2_time")(x, train))
        return x, state

    def means(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        """Concatenates the running mean (Eq. 5) and the mean of each frame, [B, T, 1, 1, 2C]."""
        each = x.mean((2, 3), keepdims=True, dtype=jnp.float32)
        running, total = running_mean(each, state["total"], state["count"])
        means = jnp.concatenate([running, each], axis=-1)
        if self.positional:
            scale = self.param("position_scale", nn.initializers.zeros, (), jnp.float32)
            code = positions(state["count"], x.shape[1], means.shape[-1])
            means += scale * code.reshape(1, x.shape[1], 1, 1, -1)
        return means.astype(x.dtype), state | {"total": total}


def running_mean(x: jax.Array, total: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the mean of frames 0 to t for every t of `x` [B, T, ...], and the new total [B, 1, ...].

    `total` [B, 1, ...] is the sum of the `count` frames before.
    """
    sums = total + jnp.cumsum(x, axis=1)
    numbers = count + 1 + jnp.arange(x.shape[1])
    return sums / numbers.reshape(1, -1, *(1,) * (x.ndim - 2)), sums[:, -1:]


def positions(start: jax.Array, frames: int, width: int) -> jax.Array:
    """Returns sinusoidal encodings of frames `start`, `start` + 1, ..., [frames, width].

    The first half of the columns are sines, the second half cosines (Vaswani et al., arXiv:1706.03762).
    """
    rates = 1e4 ** (-jnp.arange(0, width, 2) / width)
    angles = (start + jnp.arange(frames)).astype(jnp.float32)[:, None] * rates[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class MoViNet(nn.Module):
    """A base MoViNet.

    Attributes:
      num_classes: number of classes K; 0 omits the last layer and returns its input.
      stages: per stage, the output channels and, for each block, ((frames, pixels), inner channels).
      stem_width, final_width: channels of the first and of the last convolution.
      head_width: channels of the linear layer before the last.
      dropout: dropout rate before the last layer.
      drop_path: probability that a clip skips the last block, rising linearly over the blocks.
      alpha_init: scale of every block at the start.
      bn_groups, dtype, param_dtype: see `ResNet3D`.
    """

    num_classes: int
    stages: tuple
    stem_width: int
    final_width: int
    head_width: int = 2048
    dropout: float = 0.0
    drop_path: float = 0.0
    alpha_init: float = 0.0
    bn_groups: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Classifies `video` [B, T, H, W, C]; logits [B, K] and the endpoints stem, stage1.., pre_logits."""
        return self.run(video, train, None)[0]

    @nn.compact
    def run(self, x: jax.Array, train: bool, state: State | None) -> tuple[Output, State]:
        """Runs the network on frames that follow those of `state`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = partial(Conv, kernel_init=nn.initializers.he_normal(), **types)
        norm = partial(BatchNorm, 0.99, 1e-3, groups=self.bn_groups, **types)
        dense = partial(nn.Dense, kernel_init=nn.initializers.he_normal(), **types)
        make, new = self.block(), {}

        x = conv(self.stem_width, (1, 3, 3), (1, 2, 2), "SAME", name="stem_conv")(x)
        x = make.func.act(norm(name="stem_bn")(x, train))
        endpoints, done, blocks = {"stem": x}, 0, sum(len(b) for _, b in self.stages)
        for i, (width, stage) in enumerate(self.stages):
            for j, (kernel, inner) in enumerate(stage):
                name = f"stage{i + 1}_block{j}"
                block = make(
                    width,
                    inner,
                    kernel,
                    STRIDES[i] if j == 0 else 1,
                    conv,
                    norm,
                    dense,
                    drop=self.drop_path * done / blocks,
                    alpha_init=self.alpha_init,
                    name=name,
                )
                before = state and state[name] | {"count": state["count"]}
                x, after = block(x, train, before)
                new[name] = after and {k: v for k, v in after.items() if k != "count"}
                done += 1
            endpoints[f"stage{i + 1}"] = x

        x = conv(self.final_width, (1, 1, 1), name="final_conv")(x)
        x = make.func.act(norm(name="final_bn")(x, train))
        x, new = self.pool(x.astype(jnp.float32), state, new)
        x = nn.swish(nn.Dense(self.head_width, param_dtype=self.param_dtype, name="fc")(x))
        endpoints["pre_logits"] = x
        return (classify(x, self.num_classes, self.dropout, train, self.param_dtype), endpoints), new

    def block(self) -> partial:
        """Returns the constructor of the blocks."""
        return partial(Block)

    def pool(self, x: jax.Array, state: State | None, new: State) -> tuple[jax.Array, State]:
        """Returns features [B, C] of the frames."""
        return x.mean((1, 2, 3)), new


class StreamMoViNet(MoViNet):
    """A causal MoViNet; logits are those of the last frame.

    `__call__` on a clip equals `step` on its frames in turn from `init_state`. The size of the state does not
    depend on the length of the video.

    Attributes:
      positional: see `StreamBlock`.
    """

    positional: bool = False

    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        return self.run(video, train, self.init_state(video.shape[0], video.shape[2:]))[0]

    def init_state(self, batch_size: int, frame_shape: tuple[int, int, int]) -> State:
        """Returns the state before the first frame (H, W, C), all zeros.

        It has a buffer per causal convolution, a running sum per mean, and the number of frames.
        """
        height, width = (-(-n // 2) for n in frame_shape[:2])
        state = {"count": jnp.zeros((), jnp.int32)}
        for i, (_, stage) in enumerate(self.stages):
            height, width = -(-height // STRIDES[i]), -(-width // STRIDES[i])
            for j, ((frames, _), inner) in enumerate(stage):
                memory = {"total": jnp.zeros((batch_size, 1, 1, 1, inner))}
                if frames > 1:
                    shape = (batch_size, frames - 1, height, width, inner)
                    memory["frames"] = jnp.zeros(shape, self.dtype)
                state[f"stage{i + 1}_block{j}"] = memory
        return state | {"total": jnp.zeros((batch_size, 1, self.final_width))}

    def step(self, state: State, frames: jax.Array) -> tuple[Output, State]:
        """Processes the next frame [B, H, W, C], or frames [B, t, H, W, C].

        Returns:
          (logits, endpoints) and the new state. Logits are those of the whole video so far; stage endpoints
          are those of these frames.
        """
        return self.run(frames if frames.ndim == 5 else frames[:, None], False, state)

    def block(self) -> partial:
        return partial(StreamBlock, positional=self.positional)

    def pool(self, x: jax.Array, state: State | None, new: State) -> tuple[jax.Array, State]:
        means, total = running_mean(x.mean((2, 3)), state["total"], state["count"])
        return means[:, -1], new | {"total": total, "count": state["count"] + x.shape[1]}


def _stages(*rows: str) -> tuple:
    """Parses rows of output channels followed by each block's kernel (frames, pixels) and inner channels.

    "32 33:80 15:96" -> (32, (((3, 3), 80), ((1, 5), 96))).
    """
    parsed = []
    for row in rows:
        width, *blocks = row.split()
        windows = ((tuple(map(int, w)), int(inner)) for w, inner in (b.split(":") for b in blocks))
        parsed.append((int(width), tuple(windows)))
    return tuple(parsed)


# Appendix C.
A0 = dict(
    stem_width=8,
    final_width=480,
    stages=_stages(
        "8 15:24",
        "32 33:80 33:80 33:80",
        "56 53:184 33:112 33:184",
        "56 53:184 33:184 33:184 33:184",
        "104 53:384 15:280 15:280 15:344",
    ),
)
A1 = dict(
    stem_width=16,
    final_width=600,
    stages=_stages(
        "16 15:40 33:40",
        "40 33:96 33:120 33:96 33:96",
        "64 53:216 33:128 33:216 33:168 33:216",
        "64 53:216 33:216 33:216 33:128 15:128 33:216",
        "136 53:456 15:360 15:360 15:360 15:456 33:456 13:544",
    ),
)
A2 = dict(
    stem_width=16,
    final_width=640,
    stages=_stages(
        "16 15:40 33:40 33:64",
        "40 33:96 33:120 33:96 33:96 33:120",
        "72 53:240 33:160 33:240 33:192 33:240",
        "72 53:240 33:240 33:240 33:240 15:144 33:240",
        "144 53:480 15:384 15:384 15:480 15:480 33:480 13:576",
    ),
)
A3 = dict(
    stem_width=16,
    final_width=744,
    stages=_stages(
        "16 15:40 33:40 33:64 33:40",
        "48 33:112 33:144 33:112 15:112 33:144 33:144",
        "80 53:240 33:152 33:240 33:192 33:240",
        "88 53:264 33:264 33:264 33:264 15:160 33:264 33:264 33:264",
        "168 53:560 15:448 15:448 15:560 15:560 33:560 15:448 15:448 33:560 13:672",
    ),
)
A4 = dict(
    stem_width=24,
    final_width=856,
    stages=_stages(
        "24 15:64 33:64 33:96 33:64 33:96 33:64",
        "56 33:168 33:168 33:136 33:136 33:168 33:168 33:168 15:136 33:136",
        "96 53:320 33:160 33:320 33:192 33:320 33:160 33:320 33:256 33:320",
        "96 53:320 33:320 33:320 33:320 15:192 33:320 33:320 33:192 33:320 33:320",
        "192 53:640 15:512 15:512 15:640 15:640 33:640 15:512 15:512 15:640 15:768 15:640 33:640 33:768",
    ),
)
A5 = dict(
    stem_width=24,
    final_width=992,
    stages=_stages(
        "24 15:64 15:64 33:96 33:64 33:96 33:64",
        "64 53:192 33:152 33:152 33:152 33:192 33:192 33:192 33:152 33:152 33:192 33:192",
        "112 53:376 33:224 33:376 33:376 33:296 33:376 33:224 33:376 33:376 33:296 33:376 33:376 33:376",
        "120 53:376 33:376 33:376 33:376 15:224 33:376 33:376 33:224 33:376 33:376 33:376",
        "224 53:744 33:744 15:600 15:600 15:744 15:744 33:744 15:896 15:600 15:600 15:896 15:744 33:744"
        " 15:896 15:600 15:600 15:744 33:744",
    ),
)

# Network and clip at 25 fps; for base and stream, the authors' figures on Kinetics-600. `params` is None
# where only this implementation counts the scales of the positional encoding.
PRESETS = {
    "a0": dict(
        network=A0,
        frames=50,
        size=172,
        stride=5,
        base=dict(params=3_111_799, gmacs=2.63, top1=72.28, top5=90.92),
        stream=dict(params=3_748_031, gmacs=None, top1=72.05, top5=90.63),
    ),
    "a1": dict(
        network=A1,
        frames=50,
        size=172,
        stride=5,
        base=dict(params=4_690_296, gmacs=5.87, top1=76.69, top5=93.40),
        stream=dict(params=6_447_352, gmacs=None, top1=76.45, top5=93.25),
    ),
    "a2": dict(
        network=A2,
        frames=50,
        size=224,
        stride=5,
        base=dict(params=5_249_562, gmacs=11.56, top1=78.62, top5=94.17),
        stream=dict(params=7_326_962, gmacs=None, top1=78.40, top5=94.05),
    ),
    "a3": dict(
        network=A3,
        frames=120,
        size=256,
        stride=2,
        base=dict(params=7_397_545, gmacs=55.6, top1=81.79, top5=95.67),
        stream=dict(params=None, gmacs=None, top1=80.09, top5=94.84),
    ),
    "a4": dict(
        network=A4,
        frames=80,
        size=290,
        stride=3,
        base=dict(params=11_349_463, gmacs=103.3, top1=83.48, top5=96.16),
        stream=dict(params=None, gmacs=None, top1=81.49, top5=95.66),
    ),
    "a5": dict(
        network=A5,
        frames=120,
        size=320,
        stride=2,
        base=dict(params=18_650_523, gmacs=276.3, top1=84.27, top5=96.39),
        stream=dict(params=None, gmacs=None, top1=82.37, top5=95.79),
    ),
}


def _register(name: str, module: type[MoViNet], fields: dict, temporal: str) -> None:
    preset = PRESETS[name]
    frames, size = preset["frames"], preset["size"]
    form = "stream" if module is StreamMoViNet else "base"
    published = preset[form]
    ported = form == "base" or name in ("a0", "a1", "a2")
    weights = f"MoViNet-pytorch, model{name.upper()}{'_stream' * (form == 'stream')}_statedict_v3" * ported
    source = f"TensorFlow Model Garden, MoViNet-{name.upper()}-{form.title()}, {frames}x{size}x{size}"
    register_model(
        ModelSpec(
            name=f"movinet_{name}_{form}",
            family="movinet",
            module=module,
            preset=dict(**preset["network"], **fields),
            tiny=dict(
                stages=_stages("8 15:8", "8 33:16 33:16"),
                stem_width=8,
                final_width=16,
                head_width=16,
                alpha_init=1.0,
            ),
            input_shape=(frames, size, size, 3),
            tiny_input_shape=(4, 32, 32, 3),
            paper="MoViNets: Mobile Video Networks for Efficient Video Recognition",
            year=2021,
            arxiv="2103.11511",
            temporal=temporal,
            order_aware=True,
            num_classes=600,
            stride=preset["stride"],
            fps=25,
            mean=(0.0, 0.0, 0.0),  # pixels from 0 to 1
            std=(1.0, 1.0, 1.0),
            params=published["params"],
            gmacs=published["gmacs"],
            results=(Result("Kinetics-600", published["top1"], published["top5"], "1x1", source),),
            weights=weights,
            licence="MIT, of weights under Apache-2.0" if weights else "",
        )
    )


for _name in PRESETS:
    _register(_name, MoViNet, {}, "channel-wise 3D convolutions")
    _positional = _name in ("a3", "a4", "a5")
    _causal = "causal channel-wise (2+1)D convolutions and running means"
    _register(_name, StreamMoViNet, dict(positional=_positional), _causal)
