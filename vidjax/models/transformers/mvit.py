"""MViT v1 and v2: multiscale vision transformers with pooling attention.

Attention pools its queries, keys and values, so that the token grid shrinks from stage to stage while the
channels grow.

Papers: Fan et al., "Multiscale Vision Transformers" (v1), ICCV 2021, arXiv:2104.11227, Table 2 and section 3;
Li et al., "MViTv2: Improved Multiscale Vision Transformers", CVPR 2022, arXiv:2112.01526, section 4.
Input 16x224x224 of stride 4, 32x224x224 of stride 3, or 40x312x312 of stride 3 (v2-L).

v1 adds positions of space and of time to the patches, pools queries where a stage begins, and widens in the
MLP of the block before. v2 has positions relative in time, height and width inside attention, pools queries
in every block and adds them to the output of attention, and widens inside attention. Positions are
interpolated for clips of another size than `clip`, as in the authors' code.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vidjax.layers.attention import attention, attention_weights
from vidjax.layers.conv import Conv, conv
from vidjax.layers.lowering import platform
from vidjax.layers.norm import LayerNorm
from vidjax.layers.pool import max_pool
from vidjax.layers.transformer import KERNEL_INIT, REMAT, RULES, DropPath, Mlp
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model

Size = tuple[int, int, int]
PATCH = ((3, 7, 7), (2, 4, 4), (1, 3, 3))  # kernel, strides and padding of the patches


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a block: channels in, in attention and out, heads, and pooling strides."""

    dim_in: int
    dim: int
    dim_out: int
    heads: int
    pool_q: bool
    stride_q: Size
    stride_kv: Size


def block_shapes(
    width: int, heads: int, depth: int, stages: tuple[int, ...], stride_kv: Size, improved: bool
) -> list[Shape]:
    """Returns the shape of each block (v1: Table 2; v2: Table 1).

    Args:
      width, heads: of the first block; doubled at each of `stages`.
      depth: number of blocks.
      stages: the blocks at which the second and later stages begin, with queries pooled by 2 in space.
      stride_kv: of keys and values at first; halved along with the grid, so that their number stays.
      improved: v2.
    """
    shapes, channels = [], width
    for i in range(depth):
        stage = sum(i >= s for s in stages)
        if improved:
            dim = dim_out = width * 2**stage
        else:
            dim, dim_out = channels, width * 2 ** sum(i + 1 >= s for s in stages)
        stride_q = (1, 2, 2) if i in stages else (1, 1, 1)
        kv = (stride_kv[0], *(max(s // 2**stage, 1) for s in stride_kv[1:]))
        pool_q = improved or i in stages
        shapes.append(Shape(channels, dim, dim_out, heads * 2**stage, pool_q, stride_q, kv))
        channels = dim_out
    return shapes


def resize(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Linear interpolation between the centers of cells, without antialiasing; `x` itself at its own
    shape."""
    return x if x.shape == shape else jax.image.resize(x, shape, "linear", antialias=False)


def relative_positions(table: jax.Array, queries: int, keys: int) -> jax.Array:
    """Looks up the embeddings of distances along one axis, [queries, keys, D], in a `table` [2 n - 1, D].

    If the numbers of queries and keys differ, the fewer are spread over the same extent.
    """
    table = resize(table, (2 * max(queries, keys) - 1, table.shape[1]))
    # In float32 as in the authors' code, so that fractional distances round to the same row.
    per_query, per_key = np.float32(max(keys / queries, 1)), np.float32(max(queries / keys, 1))
    place_q, place_k = np.arange(queries, dtype=np.float32), np.arange(keys, dtype=np.float32)
    distance = (place_q * per_query)[:, None] - ((place_k + np.float32(1 - keys)) * per_key)[None]
    return table[distance.astype(int)]


def split_cls(x: jax.Array, size: Size) -> tuple[jax.Array, jax.Array]:
    """Maps tokens [B, 1 + THW, C] to the class token [B, 1, C] and the grid [B, T, H, W, C]."""
    return x[:, :1], x[:, 1:].reshape(x.shape[0], *size, x.shape[-1])


def join_cls(cls: jax.Array, grid: jax.Array) -> jax.Array:
    """Inverts `split_cls`."""
    return jnp.concatenate([cls, grid.reshape(grid.shape[0], -1, grid.shape[-1])], 1)


class PoolConv(nn.Module):
    """A depthwise 3x3x3 convolution with one kernel for all heads."""

    heads: int
    strides: Size
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, grid: jax.Array) -> jax.Array:
        """Maps [B, T, H, W, heads D] to [B, T', H', W', heads D]."""
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        shape = (3, 3, 3, 1, grid.shape[-1] // self.heads)
        kernel = self.param("kernel", init, shape, self.param_dtype).astype(self.dtype)
        kernel = jnp.tile(kernel, self.heads)
        return conv(grid.astype(self.dtype), kernel, self.strides, 1, groups=grid.shape[-1])


class PoolingAttention(nn.Module):
    """Attention between pooled queries and pooled keys and values (v1 section 3.1, v2 section 4.1).

    Attributes:
      shape: the block's.
      native: grid of tokens at the size whose relative positions are learned; None without them.
      residual: add the pooled queries to the output.
      pool_eps: epsilon of the norms after the pools.
      return_attention: also return the weights.
    """

    shape: Shape
    native: Size | None
    residual: bool
    pool_eps: float
    return_attention: bool
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, size: Size) -> tuple[jax.Array, Size, jax.Array | None]:
        """Tokens [B, 1 + THW, C] of a grid of `size` -> [B, 1 + T'H'W', dim], its size, and weights
        [B, heads, queries, keys] with `return_attention`."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        s = self.shape

        def pool(x, name, strides):
            cls, grid = split_cls(x, size)
            grid = PoolConv(s.heads, strides, name=f"pool_{name}", **kinds)(grid)
            x = join_cls(cls, grid)
            x = x.reshape(*x.shape[:2], s.heads, -1)
            return LayerNorm(self.pool_eps, name=f"norm_{name}", **kinds)(x), grid.shape[1:4]

        q, k, v = jnp.split(nn.Dense(3 * s.dim, kernel_init=KERNEL_INIT, name="qkv", **kinds)(x), 3, axis=-1)
        size_q = size
        if s.pool_q:
            q, size_q = pool(q, "q", s.stride_q)
        k, size_k = pool(k, "k", s.stride_kv)
        v, _ = pool(v, "v", s.stride_kv)
        q = q.reshape(*q.shape[:2], s.heads, -1)

        positions = None
        if self.native:
            positions = [
                relative_positions(self._table(axis), size_q[axis], size_k[axis]).astype(q.dtype)
                for axis in range(3)
            ]
        inputs = with_positions(q, k, positions)
        y = attention(v=v, **inputs)
        if self.residual:  # excludes the class token
            y = jnp.concatenate([y[:, :1], y[:, 1:] + q[:, 1:]], 1)
        y = y.reshape(*y.shape[:2], s.dim)
        y = nn.Dense(s.dim, kernel_init=KERNEL_INIT, name="proj", **kinds)(y)
        return y, size_q, attention_weights(**inputs) if self.return_attention else None

    def _table(self, axis: int) -> jax.Array:
        """Learned embeddings of the distances along an axis at the native size."""
        s, native = self.shape, self.native
        size = (
            native[0]
            if axis == 0
            else max(native[axis] // s.stride_q[axis], native[axis] // s.stride_kv[axis])
        )
        shape = (2 * size - 1, s.dim // s.heads)
        return self.param(f"rel_pos_{'thw'[axis]}", KERNEL_INIT, shape, self.param_dtype)


def with_positions(q: jax.Array, k: jax.Array, positions: list[jax.Array] | None) -> dict[str, Any]:
    """Arguments of `attention` for queries [B, 1 + TQ HQ WQ, heads, D] and keys [B, 1 + TK HK WK, heads, D].

    `positions` are those of time, height and width, each [queries, keys, D] along its axis. A query's
    products with the three of a key are added to its score, but to none of the class token's (v2 equation 4).
    """
    scale = q.shape[-1] ** -0.5
    if positions is None:
        return dict(q=q, k=k, scale=scale)
    b, _, heads, d = q.shape
    keys = [p.shape[1] for p in positions]
    grid = q[:, 1:].reshape(b, *(p.shape[0] for p in positions), heads, d)
    own = [jnp.einsum(f"bthwnd,{axis}kd->bthwnk", grid, p) for axis, p in zip("thw", positions)]
    if platform() == "reference":  # the sum as the paper writes it
        t, h, w = (x.transpose(0, 4, 1, 2, 3, 5) for x in own)
        bias = t[..., :, None, None] + h[..., None, :, None] + w[..., None, None, :]
        bias = bias.reshape(b, heads, -1, math.prod(keys))
        return dict(q=q, k=k, bias=jnp.pad(bias, ((0, 0), (0, 0), (1, 0), (1, 0))), scale=scale)
    # The same sum as extra columns of the product: a query's scores for each time, height and width, and a
    # one-hot encoding of the key's position. This avoids a map of biases.
    own = jnp.concatenate(own, -1).reshape(b, -1, heads, sum(keys))
    places = np.stack(np.meshgrid(*map(np.arange, keys), indexing="ij"), -1).reshape(-1, 3)
    ones = np.concatenate([places[:, i, None] == np.arange(n)[None] for i, n in enumerate(keys)], 1)
    ones = jnp.broadcast_to(jnp.asarray(ones, k.dtype)[None, :, None], (b, len(ones), heads, sum(keys)))
    own, ones = (jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0))) for x in (own, ones))
    return dict(q=jnp.concatenate([q * scale, own], -1), k=jnp.concatenate([k, ones], -1), scale=1.0)


class Block(nn.Module):
    """Pre-norm residual block of pooling attention and an MLP.

    The shortcut is pooled and projected where the grid and the channels change.
    """

    shape: Shape
    native: Size | None
    residual: bool
    pool_eps: float
    drop_path: float
    return_attention: bool
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, size: Size, train: bool) -> tuple[jax.Array, Size, jax.Array | None]:
        """Tokens [B, 1 + THW, dim_in] of a grid of `size` -> [B, 1 + T'H'W', dim_out], its size, and
        attention's weights with `return_attention`."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        s = self.shape
        project = partial(nn.Dense, s.dim_out, kernel_init=KERNEL_INIT, name="proj", **kinds)
        y = LayerNorm(1e-6, name="norm1", **kinds)(x)
        out, new_size, weights = PoolingAttention(
            s, self.native, self.residual, self.pool_eps, self.return_attention, name="attn", **kinds
        )(y, size)
        if s.dim_in != s.dim:
            x = project()(y)
        if s.stride_q != (1, 1, 1):
            cls, grid = split_cls(x, size)
            window = tuple(n + 1 if n > 1 else n for n in s.stride_q)
            x = join_cls(cls, max_pool(grid, window, s.stride_q, tuple(n // 2 for n in window)))
        x += DropPath(name="drop_path1")(out, self.drop_path, train)
        y = LayerNorm(1e-6, name="norm2", **kinds)(x)
        if s.dim != s.dim_out:
            x = project()(y)
        y = Mlp(4 * s.dim, out=s.dim_out, name="mlp", **kinds)(y)
        return x + DropPath(name="drop_path2")(y, self.drop_path, train), new_size, weights


class MViT(nn.Module):
    """MViT v1; see the module docstring for v2.

    Attributes:
      num_classes: number of classes K; 0 omits the last layer and returns the pooled features.
      clip: frames, height and width that the positions are learned for.
      width, heads: of the first stage; each later stage doubles them and halves height and width.
      depth: number of blocks.
      stages: the blocks at which the second and later stages begin.
      stride_kv: pooling of keys and values in the first stage.
      pool_eps: epsilon of the norms after the pools; pytorchvideo's is 1e-5.
      dropout: dropout rate before the last layer.
      drop_path: drop path rate of the last block, rising linearly from 0 at the first.
      return_attention: return the attention weights of each block as endpoints, see `PoolingAttention`.
      remat: what the backward pass recomputes, see `vidjax.layers.transformer`.
    """

    num_classes: int
    clip: Size = (16, 224, 224)
    width: int = 96
    heads: int = 1
    depth: int = 16
    stages: tuple[int, ...] = (1, 3, 14)
    stride_kv: Size = (1, 8, 8)
    pool_eps: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    return_attention: bool = False
    remat: str = "none"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    improved = False  # v2

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classifies `video` [B, T, H, W, C]; logits [B, K], endpoints stem, stage1.., tokens, pre_logits."""
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, static_argnums=(2, 3), policy=REMAT[self.remat])

        kernel, strides, padding = PATCH
        x = Conv(self.width, kernel, strides, padding, use_bias=True, name="patch_embed", **kinds)(video)
        size, native = x.shape[1:4], tuple(n // s for n, s in zip(self.clip, strides))
        endpoints = {"stem": x}
        cls = self.param("cls_token", KERNEL_INIT, (1, 1, self.width), self.param_dtype).astype(x.dtype)
        if not self.improved:
            cls, x = self._add_positions(cls, x, native)
        x = join_cls(jnp.broadcast_to(cls, (x.shape[0], 1, self.width)), x)

        shapes = block_shapes(self.width, self.heads, self.depth, self.stages, self.stride_kv, self.improved)
        stage = 1
        for i, (shape, rate) in enumerate(zip(shapes, np.linspace(0, self.drop_path, self.depth))):
            x, size, weights = block(
                shape,
                native if self.improved else None,
                self.improved,
                self.pool_eps,
                float(rate),
                self.return_attention,
                name=f"block{i}",
                **kinds,
            )(x, size, train)
            if weights is not None:
                endpoints[f"block{i}_attention"] = weights
            native = tuple(n // s for n, s in zip(native, shape.stride_q))
            if i + 1 in (*self.stages, self.depth):
                endpoints[f"stage{stage}"] = x
                stage += 1

        x = LayerNorm(1e-6, name="norm", **kinds)(x)
        endpoints["tokens"] = x
        x = x[:, 0].astype(jnp.float32)
        endpoints["pre_logits"] = x
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(
                self.num_classes, kernel_init=KERNEL_INIT, param_dtype=self.param_dtype, name="head"
            )(x)
        return x, endpoints

    def _add_positions(self, cls, grid, native):
        """Adds separately learned spatial and temporal position embeddings (v1 Section 4.1, "separate")."""
        t, h, w = native
        c = self.width
        time = self.param("pos_embed_temporal", KERNEL_INIT, (1, t, c), self.param_dtype)
        space = self.param("pos_embed_spatial", KERNEL_INIT, (1, h * w, c), self.param_dtype)
        own = self.param("pos_embed_class", KERNEL_INIT, (1, 1, c), self.param_dtype)
        # Equal to interpolating their sum along all axes at once, as the authors do.
        time = resize(time[0], (grid.shape[1], c)).reshape(1, -1, 1, 1, c)
        space = resize(space.reshape(h, w, c), (*grid.shape[2:4], c))[None, None]
        return cls + own.astype(cls.dtype), grid + time.astype(grid.dtype) + space.astype(grid.dtype)


class MViTv2(MViT):
    """Relative positions, queries pooled everywhere and added to the output, wider inside attention."""

    improved = True


_V1 = "Multiscale Vision Transformers, Table 4"
_V2 = "github.com/facebookresearch/SlowFast, MViTv2"
_B = dict(depth=24, stages=(2, 5, 21))
_L = dict(width=144, heads=2, depth=48, stages=(2, 8, 44))
# Class, its fields and clip; parameters, GMACs and accuracy on Kinetics-400 as published.
PRESETS = {
    "mvit_v1_b_16x4": dict(
        module=MViT,
        fields={},
        clip=(16, 224, 224),
        stride=4,
        drop_path=0.2,
        params=36_610_672,
        gmacs=70.60,
        top1=78.4,
        top5=93.5,
        views="5x1",
        source=_V1,
    ),
    "mvit_v1_b_32x3": dict(
        module=MViT,
        fields={},
        clip=(32, 224, 224),
        stride=3,
        drop_path=0.2,
        params=36_611_440,
        gmacs=169.96,
        top1=80.2,
        top5=94.4,
        views="5x1",
        source=_V1,
    ),
    "mvit_v2_s_16x4": dict(
        module=MViTv2,
        fields={},
        clip=(16, 224, 224),
        stride=4,
        drop_path=0.2,
        params=34_537_744,
        gmacs=64.22,
        top1=81.0,
        top5=94.6,
        views="5x1",
        source=_V2,
    ),
    "mvit_v2_b_32x3": dict(
        module=MViTv2,
        fields=_B,
        clip=(32, 224, 224),
        stride=3,
        drop_path=0.3,
        params=51_230_128,
        gmacs=224.5,
        top1=82.9,
        top5=95.7,
        views="5x1",
        source=_V2,
    ),
    "mvit_v2_l_40x3": dict(
        module=MViTv2,
        fields=_L,
        clip=(40, 312, 312),
        stride=3,
        drop_path=0.75,
        params=213_390_112,
        gmacs=2823.0,
        top1=86.1,
        top5=97.0,
        views="5x3",
        source=_V2,
    ),
}
_TINY = dict(clip=(4, 32, 32), width=8, heads=1, depth=3, stages=(1,), stride_kv=(1, 4, 4), drop_path=0.0)
_PAPERS = {
    MViT: dict(
        paper="Multiscale Vision Transformers",
        year=2021,
        arxiv="2104.11227",
        temporal="pooling attention over space and time",
    ),
    MViTv2: dict(
        paper="MViTv2: Improved Multiscale Vision Transformers for Classification and Detection",
        year=2022,
        arxiv="2112.01526",
        temporal="pooling attention with relative positions in space and time",
    ),
}
_WEIGHTS = {"mvit_v1_b_16x4": "mvit_v1_b", "mvit_v2_s_16x4": "mvit_v2_s"}

for _name, _preset in PRESETS.items():
    _large = _name == "mvit_v2_l_40x3"  # pretrained on ImageNet, and normalized as there
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="mvit",
            module=_preset["module"],
            preset=dict(_preset["fields"], clip=_preset["clip"], drop_path=_preset["drop_path"]),
            tiny=_TINY,
            input_shape=(*_preset["clip"], 3),
            tiny_input_shape=(4, 32, 32, 3),
            **_PAPERS[_preset["module"]],
            order_aware=True,
            stride=_preset["stride"],
            mean=IMAGENET_MEAN if _large else (0.45,) * 3,
            std=IMAGENET_STD if _large else (0.225,) * 3,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("Kinetics-400", *(_preset[k] for k in ("top1", "top5", "views", "source"))),),
            weights=f"torchvision.models.video.{_WEIGHTS[_name]}, KINETICS400_V1"
            if _name in _WEIGHTS
            else "",
            licence="BSD-3-Clause" if _name in _WEIGHTS else "",
        )
    )
