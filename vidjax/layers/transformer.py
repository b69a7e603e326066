"""Pre-norm transformer encoders on tokens [B, N, D].

Building blocks, in the order in which a model uses them:

    PatchEmbed(width, patch)            [B, (T,) H, W, C] -> [B, (T',) H', W', D]: patches or tubelets
    TokenGrid(shape, prefix)            the layout of the tokens: (T', H', W') after `prefix` others
    sincos_positions(count, width)      a fixed table [N, D]
    interpolate_positions(table, ...)   a learned table on another grid
    Attention, Mlp, DropPath, LayerScale, Block
    apply_blocks(block, x, depth, ...)  the encoder: block0, block1, ... in the caller's own names

Block's parameters are norm1, attn/{qkv, proj}, norm2, mlp/{fc1, fc2}, and ls1, ls2 with layer scale. `qkv` is
one Dense of 3 D columns: q, k, v, each head by head.

`apply_blocks` takes `scan` (one traced block with parameters stacked under "blocks", which compiles in the
time of one layer) and `remat` ("none"; "dots": save only the outputs of Dense layers for the backward pass;
"full": save only the input of each block). Neither changes the result. `vidjax.layers.stacking` converts
between the two layouts of parameters.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.typing import DTypeLike

from vidjax.layers.attention import attention, attention_weights
from vidjax.layers.norm import LayerNorm
from vidjax.sharding import SAMPLES, axis_size, constrain

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
# Placement of the parameters of `Attention` and `Mlp`, see `vidjax.sharding.state_shardings`.
RULES = (
    (r"qkv/kernel$", [["fsdp", "tensor"], None]),
    (r"(proj|fc2)/kernel$", ["tensor", "fsdp"]),
    (r"fc1/kernel$", ["fsdp", "tensor"]),
    (r"fc1/bias$", ["tensor"]),
    (r".*", "fsdp"),
)
KERNEL_INIT = nn.initializers.truncated_normal(0.02)
XAVIER = nn.initializers.xavier_uniform()  # as in the releases of ViT, ViViT and masked autoencoders


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """Computes the exact GELU, x Phi(x) (Hendrycks & Gimpel, arXiv:1606.08415).

    The custom derivative saves one array for the backward pass, computed in the forward pass.
    """
    return x * _normal_cdf(x)


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    cdf = _normal_cdf(x)
    density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return x * cdf, (cdf + x * density) * dx


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


class Mlp(nn.Module):
    """Dense, GELU, Dense: [..., D] -> [..., out].

    Attributes:
      width: width of the hidden layer.
      out: width of the last layer; D if None.
      tanh_gelu: use the tanh approximation of GELU.
      dropout: dropout rate after each of the two layers.
      dtype, param_dtype: dtypes of the computation and of the parameters.
      kernel_init: initializer of both kernels.
    """

    width: int
    tanh_gelu: bool = False
    dropout: float = 0.0
    out: int | None = None
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Callable = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=self.kernel_init)
        h = nn.Dense(self.width, name="fc1", **types)(x)
        h = nn.gelu(h, approximate=True) if self.tanh_gelu else gelu(h)
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = nn.Dense(self.out or x.shape[-1], name="fc2", **types)(h)
        return nn.Dropout(self.dropout, deterministic=not train)(h)


class Attention(nn.Module):
    """Multi-head self-attention.

    Attributes:
      heads: H, number of heads of width D / H.
      qkv_bias: which projections have a bias: "qkv", "qv" (parameters q_bias and v_bias) or "".
      dropout: dropout rate after the output projection.
      attention_dropout: dropout rate of the attention weights.
      backend: see `vidjax.layers.attention`.
      return_attention: also return the weights, which takes memory quadratic in the number of tokens.
      kernel_init: initializer of both kernels.
    """

    heads: int
    qkv_bias: str = "qkv"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    backend: str = "auto"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Callable = KERNEL_INIT

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        *,
        bias: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Maps tokens [B, N, D] to [B, N, D], and to weights [B, H, N, N] with `return_attention`, else None.

        `bias` and `mask` are those of `attention`.
        """
        if self.qkv_bias not in ("qkv", "qv", ""):
            raise ValueError(f"unknown qkv_bias {self.qkv_bias!r}: use 'qkv', 'qv' or ''")
        width = x.shape[-1]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=self.kernel_init)
        added = None
        if self.qkv_bias == "qv":
            q_bias, v_bias = (
                self.param(name, nn.initializers.zeros, (width,), self.param_dtype)
                for name in ("q_bias", "v_bias")
            )
            added = jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias])
        q, k, v = QKV(self.heads, self.qkv_bias == "qkv", name="qkv", **types)(x, added)
        if x.ndim == 3:
            q = constrain(q, SAMPLES, "context", "tensor")
            k, v = (constrain(part, SAMPLES, None, "tensor") for part in (k, v))
        dropout = self.attention_dropout if train else 0.0
        rng = self.make_rng("dropout") if dropout else None
        y = attention(q, k, v, bias=bias, mask=mask, backend=self.backend, dropout=dropout, rng=rng)
        weights = attention_weights(q, k, bias=bias, mask=mask) if self.return_attention else None
        y = nn.Dense(width, name="proj", **types)(y.reshape(x.shape))
        return nn.Dropout(self.dropout, deterministic=not train)(y), weights


class QKV(nn.Module):
    """Dense layer to queries, keys and values of H heads, with the parameters of nn.Dense with 3 D columns.

    On a mesh with the axis "tensor", each of its devices computes some heads. The columns are ordered q, k, v
    and then by head, so the kernel is moved between devices, which is smaller than the tokens.
    """

    heads: int
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Callable = KERNEL_INIT

    @nn.compact
    def __call__(self, x: jax.Array, bias: jax.Array | None = None) -> list[jax.Array]:
        """Maps [..., D] to three arrays [..., H, D / H]; a given `bias` [3 D] is added."""
        width = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (width, 3 * width), self.param_dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (3 * width,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if axis_size("tensor") > 1:
            kernel = constrain(kernel.reshape(width, 3, self.heads, -1), None, None, "tensor")
            y = jnp.einsum("...d,dche->...che", x, kernel)
            y = y if bias is None else y + bias.reshape((1,) * (x.ndim - 1) + y.shape[-3:])
            return [y[..., i, :, :] for i in range(3)]
        y = x @ kernel
        y = y if bias is None else y + bias.reshape((1,) * (x.ndim - 1) + (-1,))
        return [part.reshape(*x.shape[:-1], self.heads, -1) for part in jnp.split(y, 3, axis=-1)]


class DropPath(nn.Module):
    """Drops a residual branch for whole samples and scales up the others.

    Huang et al., "Deep Networks with Stochastic Depth", arXiv:1603.09382. `rate` may be an array, as it is
    under scan. Uses the rng stream "dropout".
    """

    @nn.compact
    def __call__(self, x: jax.Array, rate: float | jax.Array, train: bool) -> jax.Array:
        if not train or (isinstance(rate, float) and rate == 0.0):
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
        return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))


class LayerScale(nn.Module):
    """A learned scale per channel, initialized to `init` (Touvron et al., arXiv:2103.17239, Section 2)."""

    init: float
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.constant(self.init), (x.shape[-1],), self.param_dtype)
        return x * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Block(nn.Module):
    """Pre-norm residual block of attention and an MLP (Dosovitskiy et al., arXiv:2010.11929, Eqs. 2 and 3).

    Attributes:
      heads, qkv_bias, attention_dropout, backend, return_attention: see `Attention`.
      mlp_width, tanh_gelu: see `Mlp`.
      epsilon: of both norms.
      dropout: rate after the projection and within the MLP.
      layer_scale: initial value of `LayerScale` on both branches; omitted if None.
      dtype, param_dtype: of the computation and of the parameters.
      kernel_init: of all kernels.
    """

    heads: int
    mlp_width: int
    qkv_bias: str = "qkv"
    tanh_gelu: bool = False
    epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_scale: float | None = None
    backend: str = "auto"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    kernel_init: Callable = KERNEL_INIT

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, drop_path: float | jax.Array = 0.0
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps tokens [B, N, D] to the same shape, and to {"attention": [B, H, N, N]} or {}."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        dense = types | dict(kernel_init=self.kernel_init)
        x = constrain(x, SAMPLES, "context")

        def branch(i: int, y: jax.Array) -> jax.Array:
            if self.layer_scale is not None:
                y = LayerScale(self.layer_scale, self.param_dtype, name=f"ls{i}")(y)
            return constrain(x + DropPath(name=f"drop_path{i}")(y, drop_path, train), SAMPLES, "context")

        y, weights = Attention(
            self.heads,
            self.qkv_bias,
            self.dropout,
            self.attention_dropout,
            self.backend,
            self.return_attention,
            name="attn",
            **dense,
        )(LayerNorm(self.epsilon, name="norm1", **types)(x), train)
        x = branch(1, y)
        y = LayerNorm(self.epsilon, name="norm2", **types)(x)
        y = Mlp(self.mlp_width, self.tanh_gelu, self.dropout, name="mlp", **dense)(y, train)
        return branch(2, y), {} if weights is None else {"attention": weights}


def apply_blocks(
    block: Callable[..., nn.Module],
    x: jax.Array,
    depth: int,
    train: bool = False,
    *,
    drop_path: float = 0.0,
    scan: bool = False,
    remat: str = "none",
    name: str = "block",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Applies `depth` equal blocks as submodules of the calling compact method.

    Args:
      block: constructor, `block(name=...)`; the module is called with (x, train, drop_path rate) as `Block`
        is.
      x: tokens [B, N, D], or any input of the block.
      depth: L, the number of blocks.
      train: whether dropout and drop path are active.
      drop_path: rate of the last block, rising linearly from 0 at the first.
      scan: one scanned block with stacked parameters, named `name` + "s".
      remat: what a block saves for the backward pass, see the module docstring.
      name: prefix of the names of the blocks.

    Returns:
      The tokens, and the extra outputs of the blocks stacked over layers: {"attention": [L, B, H, N, N]}.
    """
    if remat not in REMAT:
        raise ValueError(f"unknown remat {remat!r}: use one of {', '.join(REMAT)}")
    rates = np.linspace(0.0, drop_path, depth) if train and drop_path else None

    def run(module: nn.Module, x: Any, rate: Any) -> tuple[Any, dict[str, jax.Array]]:
        return module(x, train, 0.0 if rate is None else rate)

    if remat != "none":
        run = nn.remat(run, policy=REMAT[remat], prevent_cse=not scan)
    if scan:
        run = nn.scan(run, {"params": 0}, split_rngs={"params": True, "dropout": True}, length=depth)
        return run(block(name=f"{name}s"), x, None if rates is None else jnp.asarray(rates, jnp.float32))
    extras = []
    for i in range(depth):
        x, extra = run(block(name=f"{name}{i}"), x, None if rates is None else float(rates[i]))
        extras.append(extra)
    return x, jax.tree.map(lambda *xs: jnp.stack(xs), *extras) if extras else {}


class PatchEmbed(nn.Module):
    """Embeds patches of an image or tubelets of a clip with a shared linear layer.

    Attributes:
      width: D.
      patch: (p_h, p_w) for images, (p_t, p_h, p_w) for clips; incomplete patches are dropped.
    """

    width: int
    patch: Sequence[int]
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        """Maps [B, (T,) H, W, C] to [B, (T / p_t,) H / p_h, W / p_w, D].

        With `kept`, int [B, N], only the patches of these row-major indices are embedded, [B, N, D]. The
        kernel has the shape of a convolution, [*patch, C, D]; a matrix product on rearranged pixels is
        faster.
        """
        patch = tuple(self.patch)
        shape = (*patch, x.shape[-1], self.width)
        size = math.prod(shape[:-1])

        def init(key, shape, dtype):
            return nn.initializers.xavier_uniform()(key, (size, self.width), dtype).reshape(shape)

        kernel = self.param("kernel", init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        x = patches(x, patch) if kept is None else some_patches(x, patch, kept)
        y = x @ kernel.reshape(size, self.width)
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def patches(x: jax.Array, patch: Sequence[int]) -> jax.Array:
    """Maps [B, (T,) H, W, C] to [B, (T',) H', W', (p_t) p_h p_w C]; raises ValueError if no patch fits."""
    n = len(patch)
    grid = tuple(size // p for size, p in zip(x.shape[1 : n + 1], patch, strict=True))
    if x.ndim != n + 2 or 0 in grid:
        raise ValueError(f"no patch of size {tuple(patch)} fits an input of shape {x.shape[1:]}")
    x = x[(slice(None), *(slice(g * p) for g, p in zip(grid, patch)))]
    x = x.reshape(x.shape[0], *(size for pair in zip(grid, patch) for size in pair), x.shape[-1])
    order = (0, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return x.transpose(order).reshape(x.shape[0], *grid, -1)


def some_patches(x: jax.Array, patch: Sequence[int], numbers: jax.Array) -> jax.Array:
    """Returns the patches of row-major `numbers` int [B, N], see `patches`, as [B, N, (p_t) p_h p_w C]."""
    every = patches(x, patch)
    # Without the barrier, XLA fuses the gather with the transposition: minutes of compilation for TPUs.
    every = jax.lax.optimization_barrier(every.reshape(len(every), -1, every.shape[-1]))
    return jnp.take_along_axis(every, numbers[..., None], axis=1)


@dataclasses.dataclass(frozen=True)
class TokenGrid:
    """The layout of the tokens of a model, for attention maps and feature maps.

    Attributes:
      shape: (T', H', W'); T' is 1 for images.
      prefix: number of tokens before the grid, such as a class token.
    """

    shape: tuple[int, int, int]
    prefix: int = 0

    @property
    def count(self) -> int:
        """N, the total number of tokens."""
        return self.prefix + math.prod(self.shape)

    def unflatten(self, x: jax.Array, axis: int = 1) -> jax.Array:
        """[..., N, ...] -> [..., T', H', W', ...] at `axis`, without the prefix."""
        x = lax.slice_in_dim(x, self.prefix, self.count, axis=axis)
        return x.reshape(*x.shape[:axis], *self.shape, *x.shape[axis % x.ndim + 1 :])


def sincos_positions(count: int, width: int) -> np.ndarray:
    """Returns the sine-cosine position table [count, width], float32.

    Column 2i is sin(n / 10000^(2i / width)), column 2i + 1 the cosine (Vaswani et al., arXiv:1706.03762,
    section 3.5).
    """
    angle = np.arange(count)[:, None] / 10000 ** (np.arange(width) // 2 * 2 / width)[None]
    return np.where(np.arange(width)[None] % 2, np.cos(angle), np.sin(angle)).astype(np.float32)


def interpolate_positions(
    table: jax.Array, grid: Sequence[int], new_grid: Sequence[int], prefix: int = 0
) -> jax.Array:
    """Interpolates a learned position table to another grid.

    Args:
      table: [prefix + N, D], N rows over `grid` in row-major order.
      grid, new_grid: sizes per axis, such as (H', W') or (T', H', W').
      prefix: rows before the grid, which are returned unchanged.

    Returns:
      [prefix + N', D], by cubic interpolation in float32, antialiased when downsampling.
    """
    if tuple(grid) == tuple(new_grid):
        return table
    width = table.shape[-1]
    x = table[prefix:].astype(jnp.float32).reshape(*grid, width)
    x = jax.image.resize(x, (*new_grid, width), "cubic").reshape(-1, width)
    return jnp.concatenate([table[:prefix], x.astype(table.dtype)])
