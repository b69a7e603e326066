"""Video Swin Transformer: attention in 3D windows that shift from one block to the next.

Paper: Liu et al., "Video Swin Transformer", CVPR 2022, arXiv:2106.13230, sections 3.1-3.3 and Table 1. Input
32x224x224, frames of stride 2. Swin-B on Something-Something (Table 3) is `window=(16, 7, 7)`, Swin-L at 384
is `window=(8, 12, 12)`.

The paper does not cover sizes that are not divisible by the window. The authors' code and torchvision pad
them with zeros that take part in attention, and index the bias of a window clipped in height or width by the
offsets of the first tokens of the full window. `edges="reference"` reproduces this, so that pretrained
weights give the same output; `edges="exact"` masks the padding and uses the true offsets. Both are equal at
the paper's sizes.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vidjax.layers.attention import attention, attention_weights
from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import KERNEL_INIT, REMAT, RULES, DropPath, Mlp, PatchEmbed
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model

# Table 1; parameters, GMACs, and accuracy on Kinetics-400 as published.
PRESETS = {
    "swin3d_t": dict(
        width=96,
        depths=(2, 2, 6, 2),
        heads=(3, 6, 12, 24),
        drop_path=0.1,
        params=28_158_070,
        gmacs=87.76,
        top1=78.8,
        top5=93.6,
        pretraining="ImageNet-1K",
    ),
    "swin3d_s": dict(
        width=96,
        depths=(2, 2, 18, 2),
        heads=(3, 6, 12, 24),
        drop_path=0.2,
        params=49_816_678,
        gmacs=165.68,
        top1=80.6,
        top5=94.5,
        pretraining="ImageNet-1K",
    ),
    "swin3d_b": dict(
        width=128,
        depths=(2, 2, 18, 2),
        heads=(4, 8, 16, 32),
        drop_path=0.3,
        params=88_048_984,
        gmacs=281.33,
        top1=82.7,
        top5=95.5,
        pretraining="ImageNet-21K",
    ),
    "swin3d_l": dict(
        width=192,
        depths=(2, 2, 18, 2),
        heads=(6, 12, 24, 48),
        drop_path=0.4,
        params=196_953_916,
        gmacs=603.3,
        top1=83.1,
        top5=95.9,
        pretraining="ImageNet-21K",
    ),
}
Size = tuple[int, int, int]


def fit_window(size: Size, window: Size, shift: Size) -> tuple[Size, Size]:
    """The window and shift on a grid of `size`: an axis within one window is not cut, and does not shift."""
    fits = [s <= w for s, w in zip(size, window)]
    return (
        tuple(s if f else w for f, s, w in zip(fits, size, window)),
        tuple(0 if f else d for f, d in zip(fits, shift)),
    )


def window_regions(size: Size, window: Size, shift: Size, hide_padding: bool = False) -> np.ndarray:
    """The region of each token of each shifted window, int [windows, tokens of one].

    Rolling the grid by `shift` puts tokens from opposite ends into one window: their regions differ, and they
    do not attend to each other (section 3.2). Padding has a region of its own where it is to be hidden.
    """
    whole = tuple(-(-s // w) * w for s, w in zip(size, window))
    wrapped = np.zeros((1, 1, 1), int)
    padding = np.zeros((1, 1, 1), bool)
    for axis, (s, n, d) in enumerate(zip(size, whole, shift)):
        place = np.expand_dims(np.arange(n), [a for a in range(3) if a != axis])
        wrapped = 2 * wrapped + (place >= n - d)
        padding = padding | ((place + d) % n >= s)
    regions = np.where(padding, -1, wrapped) if hide_padding else np.broadcast_to(wrapped, whole)
    return np.asarray(partition(regions[None, ..., None], window))[0, :, :, 0]


def partition(x, window: Size):
    """Maps [B, T, H, W, C] to [B, windows, tokens of one, C], both in the order of T, H, W."""
    b, *size, c = x.shape
    (t, h, w), (wt, wh, ww) = size, window
    x = x.reshape(b, t // wt, wt, h // wh, wh, w // ww, ww, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, -1, wt * wh * ww, c)


def merge(x, size: Size, window: Size):
    """Inverts `partition` for a grid of `size`."""
    (t, h, w), (wt, wh, ww) = size, window
    x = x.reshape(-1, t // wt, h // wh, w // ww, wt, wh, ww, x.shape[-1]).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(-1, t, h, w, x.shape[-1])


def position_bias(table: jax.Array, window: Size) -> jax.Array:
    """Bias of each pair of tokens of a window, by their offset in time, height and width (equation 3).

    Args:
      table: [2 window_t - 1, 2 window_h - 1, 2 window_w - 1, heads].
      window: tokens along each axis.

    Returns:
      [heads, tokens, tokens], queries first.
    """
    # Slices of the reversed table instead of a gather, whose gradient is a scatter of tokens^2 terms.
    x = table[::-1, ::-1, ::-1]
    for axis, n in enumerate(window):  # axis of offsets -> queries, keys
        x = jnp.stack(
            [jax.lax.slice_in_dim(x, n - 1 - i, 2 * n - 1 - i, 1, 2 * axis) for i in range(n)], 2 * axis
        )
    tokens = math.prod(window)
    return x.transpose(6, 0, 2, 4, 1, 3, 5).reshape(-1, tokens, tokens)


class WindowAttention(nn.Module):
    """Attention within 3D windows, of tokens of one region each.

    Attributes:
      heads: number of heads.
      window: size of the whole window, of the table of biases.
      shift: steps by which the grid is rolled before it is cut.
      edges: see the module.
      return_attention: also return the weights.
    """

    heads: int
    window: Size
    shift: Size
    edges: str
    return_attention: bool
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Maps [B, T, H, W, C] to the same, and weights [B, windows, heads, tokens, tokens] with
        `return_attention`."""
        dense = partial(nn.Dense, kernel_init=KERNEL_INIT, dtype=self.dtype, param_dtype=self.param_dtype)
        exact = self.edges == "exact"
        b, *size, c = x.shape
        offsets = tuple(2 * w - 1 for w in self.window)
        shape = (math.prod(offsets), self.heads)
        table = self.param("relative_position_bias", KERNEL_INIT, shape, self.param_dtype)
        table = table.reshape(*offsets, self.heads)

        window, shift = fit_window(size, self.window, self.shift)
        tokens = math.prod(window)
        if exact:
            table = table[tuple(slice(w - n, w + n - 1) for w, n in zip(self.window, window))]
            bias = position_bias(table, window)
        else:
            bias = position_bias(table, self.window)[:, :tokens, :tokens]
        mask = None
        regions = window_regions(size, window, shift, hide_padding=exact)
        if (regions != regions[:, :1]).any():
            regions = jnp.asarray(regions)
            mask = regions[:, None, :, None] == regions[:, None, None, :]

        x = jnp.pad(x, ((0, 0), *((0, -s % w) for s, w in zip(size, window)), (0, 0)))
        whole = x.shape[1:4]
        x = partition(jnp.roll(x, [-s for s in shift], (1, 2, 3)), window)
        qkv = dense(3 * c, name="qkv")(x).reshape(-1, tokens, 3 * self.heads, c // self.heads)
        q, k, v = jnp.split(qkv, 3, axis=2)
        y = attention(q, k, v, bias=bias[None], mask=mask).reshape(x.shape)
        y = jnp.roll(merge(dense(c, name="proj")(y), whole, window), shift, (1, 2, 3))
        weights = None
        if self.return_attention:
            weights = attention_weights(q, k, bias=bias[None], mask=mask)
            weights = weights.reshape(b, -1, *weights.shape[1:])
        return y[:, : size[0], : size[1], : size[2]], weights


class Block(nn.Module):
    """Pre-norm residual block of window attention and an MLP (Figure 2)."""

    heads: int
    window: Size
    shift: Size
    mlp_ratio: float
    drop_path: float
    edges: str
    return_attention: bool
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array | None]:
        """Maps [B, T, H, W, C] to the same, and attention's weights with `return_attention`."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = LayerNorm(1e-5, name="norm1", **kinds)(x)
        y, weights = WindowAttention(
            self.heads, self.window, self.shift, self.edges, self.return_attention, name="attn", **kinds
        )(y)
        x += DropPath(name="drop_path1")(y, self.drop_path, train)
        y = LayerNorm(1e-5, name="norm2", **kinds)(x)
        y = Mlp(int(x.shape[-1] * self.mlp_ratio), name="mlp", **kinds)(y)
        return x + DropPath(name="drop_path2")(y, self.drop_path, train), weights


class PatchMerging(nn.Module):
    """Concatenates 2x2 patches of each frame and projects their 4C channels to 2C (Section 3.1)."""

    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, H, W, C] to [B, T, H/2, W/2, 2C], of zeros where a side is odd."""
        b, t, h, w, c = x.shape
        x = jnp.pad(x, ((0, 0), (0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        x = x.reshape(b, t, (h + 1) // 2, 2, (w + 1) // 2, 2, c).transpose(0, 1, 2, 4, 5, 3, 6)
        x = x.reshape(*x.shape[:4], 4 * c)
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = LayerNorm(1e-5, name="norm", **kinds)(x)
        return nn.Dense(2 * c, use_bias=False, kernel_init=KERNEL_INIT, name="reduction", **kinds)(x)


class VideoSwin(nn.Module):
    """Patches of 2x4x4 pixels, four stages of shifted windows, a norm, a global average and a linear layer.

    Attributes:
      num_classes: number of classes K; 0 omits the last layer and returns the pooled features.
      width: channels of the first stage; each later stage doubles them and halves height and width.
      depths: blocks of each stage; every second one shifts its windows by half.
      heads: attention heads of each stage.
      window: tokens along T, H and W.
      patch: pixels along T, H and W.
      mlp_ratio: hidden over outer width.
      dropout: dropout rate before the last layer.
      drop_path: drop path rate of the last block, rising linearly from 0 at the first.
      edges: "reference" or "exact", see the module.
      return_attention: return the attention weights of each block as endpoints, see `WindowAttention`.
      remat: what the backward pass recomputes, see `vidjax.layers.transformer`.
    """

    num_classes: int
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: Size = (8, 7, 7)
    patch: Size = (2, 4, 4)
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0
    edges: str = "reference"
    return_attention: bool = False
    remat: str = "none"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classifies `video` [B, T, H, W, C]; logits [B, K], endpoints stem, stage1.., tokens, pre_logits."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, static_argnums=(2,), policy=REMAT[self.remat])

        x = jnp.pad(video, ((0, 0), *((0, -s % p) for s, p in zip(video.shape[1:4], self.patch)), (0, 0)))
        x = PatchEmbed(self.width, self.patch, name="patch_embed", **kinds)(x)
        x = LayerNorm(1e-5, name="patch_norm", **kinds)(x)
        endpoints = {"stem": x}
        rates = iter(np.linspace(0, self.drop_path, sum(self.depths)))
        for i, (depth, heads) in enumerate(zip(self.depths, self.heads), 1):
            if i > 1:
                x = PatchMerging(name=f"stage{i}_merge", **kinds)(x)
            for j in range(depth):
                name = f"stage{i}_block{j}"
                shift = tuple(w // 2 for w in self.window) if j % 2 else (0, 0, 0)
                x, weights = block(
                    heads,
                    self.window,
                    shift,
                    self.mlp_ratio,
                    float(next(rates)),
                    self.edges,
                    self.return_attention,
                    name=name,
                    **kinds,
                )(x, train)
                if weights is not None:
                    endpoints[f"{name}_attention"] = weights
            endpoints[f"stage{i}"] = x

        x = LayerNorm(1e-5, name="norm", **kinds)(x)
        endpoints["tokens"] = x.reshape(x.shape[0], -1, x.shape[-1])
        x = x.astype(jnp.float32).mean((1, 2, 3))
        endpoints["pre_logits"] = x
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(
                self.num_classes, kernel_init=KERNEL_INIT, param_dtype=self.param_dtype, name="head"
            )(x)
        return x, endpoints


_AUTHORS = "github.com/SwinTransformer/Video-Swin-Transformer, Kinetics-400"
_TINY = dict(width=8, depths=(2, 2), heads=(1, 2), window=(2, 3, 3), drop_path=0.0)

for _name, _preset in PRESETS.items():
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="video_swin",
            module=VideoSwin,
            preset=dict(
                width=_preset["width"],
                depths=_preset["depths"],
                heads=_preset["heads"],
                drop_path=_preset["drop_path"],
            ),
            tiny=_TINY,
            input_shape=(32, 224, 224, 3),
            tiny_input_shape=(8, 32, 32, 3),
            paper="Video Swin Transformer",
            year=2022,
            arxiv="2106.13230",
            temporal="3D shifted windows",
            order_aware=True,
            stride=2.0,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(
                Result(
                    "Kinetics-400",
                    _preset["top1"],
                    _preset["top5"],
                    "4x3",
                    f"{_AUTHORS}, pretrained on {_preset['pretraining']}",
                ),
            ),
            weights=f"torchvision.models.video.{_name}, KINETICS400_V1" if _name != "swin3d_l" else "",
            licence="BSD-3-Clause" if _name != "swin3d_l" else "",
        )
    )
