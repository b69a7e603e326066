"""VTN: an image ViT on each frame, then Longformer layers over the whole video.

Paper: Neimark et al., "Video Transformer Network", ICCV workshops 2021, arXiv:2102.00719; section 3, figure 1
and section 4.1. The layers are Longformer's (Beltagy et al., arXiv:2004.05150, section 3): a frame attends to
the frames within half a window on either side and to a class token; the class token attends to all with
projections of its own, and goes through an MLP to the classifier. Cost is linear in the number of frames.
Input: video [B, T, H, W, C], in the end all 250 frames of ten seconds at once; positions are frame numbers.

LayerNorm follows the residual sum, and the layout is that of the authors' release (the VTN of PySlowFast),
with type embeddings for class token and frames. Deviation: the release numbers the frames of a
training clip from the video's beginning; here a training clip begins at a random number.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vidjax.layers.attention import attention
from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import RULES, Mlp, apply_blocks, gelu
from vidjax.models.frame.frame_model import FrameModel, Output
from vidjax.registry import ModelSpec, Result, register_model

EPSILON = 1e-12  # Longformer's


def sliding_window(
    q: jax.Array, k: jax.Array, v: jax.Array, reach: int, backend: str = "auto", **dropout
) -> jax.Array:
    """Attention of each frame to those at most `reach` frames away and to the class token.

    Frames are taken in chunks of `reach` queries, whose keys are the chunk itself, the two beside it and the
    class token: products and memory are linear in T, where a mask on all pairs is quadratic.

    Args:
      q: [B, T, H, D], of the frames.
      k, v: [B, 1 + T, H, D], the class token first.
      reach: half the window.
      backend, dropout: see `layers.attention.attention`.

    Returns:
      [B, T, H, D].
    """
    b, t, h, d = q.shape
    chunks = -(-t // reach)
    fill = chunks * reach - t
    q = jnp.pad(q, ((0, 0), (0, fill), (0, 0), (0, 0))).reshape(b * chunks, reach, h, d)

    def beside(x: jax.Array) -> jax.Array:
        """Maps [B, 1 + T, H, D] to [B * chunks, 1 + 3 reach, H, D]."""
        cls = jnp.broadcast_to(x[:, None, :1], (b, chunks, 1, h, d))
        x = jnp.pad(x[:, 1:], ((0, 0), (reach, fill + reach), (0, 0), (0, 0)))
        x = x.reshape(b, chunks + 2, reach, h, d)
        near = [x[:, i : i + chunks] for i in range(3)]
        return jnp.concatenate([cls, *near], axis=2).reshape(b * chunks, -1, h, d)

    query = np.arange(chunks * reach).reshape(chunks, reach, 1)
    key = np.arange(-reach, 2 * reach).reshape(1, 1, -1) + query[:, :1]
    visible = (abs(query - key) <= reach) & (key >= 0) & (key < t)
    visible = np.concatenate([np.ones_like(visible[..., :1]), visible], axis=-1)
    y = attention(q, beside(k), beside(v), mask=jnp.asarray(visible[:, None]), backend=backend, **dropout)
    return y.reshape(b, -1, h, d)[:, :t]


class WindowAttention(nn.Module):
    """Longformer's self-attention: `sliding_window` for the frames; for the class token, which comes first,
    attention to all by the projections global_q and global_kv.

    Attributes:
      heads: H.
      window: frames that a frame sees, half of them before it and half after it, besides itself.
      attention_dropout: of the weights.
      backend: see `vidjax.layers.attention`.
      initializer_range: standard deviation of the kernels at the start, before they are cut at twice that.
    """

    heads: int
    window: int
    attention_dropout: float = 0.0
    backend: str = "auto"
    initializer_range: float = 0.02
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps [B, 1 + T, D] to the same shape."""
        b, n, d = x.shape
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        dense = partial(
            nn.Dense, kernel_init=nn.initializers.truncated_normal(self.initializer_range), **types
        )
        heads = lambda y, parts: y.reshape(b, -1, parts, self.heads, d // self.heads)  # noqa: E731
        q, k, v = jnp.moveaxis(heads(dense(3 * d, name="qkv")(x), 3), 2, 0)
        first = heads(dense(d, name="global_q")(x[:, :1]), 1)[:, :, 0]
        everything = heads(dense(2 * d, name="global_kv")(x), 2)
        rate = self.attention_dropout if train else 0.0
        drop = lambda: dict(dropout=rate, rng=self.make_rng("dropout") if rate else None)  # noqa: E731
        frames = sliding_window(q[:, 1:], k, v, self.window // 2, self.backend, **drop())
        keys, values = everything[:, :, 0], everything[:, :, 1]
        cls = attention(first, keys, values, backend=self.backend, **drop())
        return dense(d, name="proj")(jnp.concatenate([cls, frames], axis=1).reshape(b, n, d))


class LongformerBlock(nn.Module):
    """attn, norm1, mlp, norm2: each norm after the sum with the shortcut."""

    heads: int
    mlp_width: int
    window: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    backend: str = "auto"
    initializer_range: float = 0.02
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_path: float = 0.0) -> Output:
        """Maps [B, 1 + T, D] to the same shape, and {}."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        fields = (self.heads, self.window, self.attention_dropout, self.backend, self.initializer_range)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = drop(WindowAttention(*fields, name="attn", **types)(x, train))
        x = LayerNorm(EPSILON, name="norm1", **types)(x + y)
        init = nn.initializers.truncated_normal(self.initializer_range)
        y = drop(Mlp(self.mlp_width, kernel_init=init, name="mlp", **types)(x))
        return LayerNorm(EPSILON, name="norm2", **types)(x + y), {}


class VTN(FrameModel):
    """VTN. `dropout` is the rate within the classifier's MLP.

    Attributes:
      depth, heads, mlp_width, window: of the layers over time, which are as wide as the trunk's features.
      positions: rows of the table of positions: of frames, then one of the class token and one of padding,
        which the release has; frame numbers start again after the last.
      stride: frames of the video from one frame of the clip to the next.
      head_width: of the MLP before the classifier; the trunk's width where None.
      encoder_dropout, attention_dropout: rates within the layers over time.
      initializer_range: the same for kernels and tables, but the trunk's; 0.02, the release's, is for its
        width of 768.
      scan, remat, backend: of these layers; the trunk has its own, in `trunk_options`.
    """

    trunk: str = "vit_b_16"
    depth: int = 3
    heads: int = 12
    mlp_width: int = 3072
    window: int = 32
    positions: int = 288
    stride: int = 1
    head_width: int | None = None
    encoder_dropout: float = 0.0
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    scan: bool = False
    remat: str = "none"
    backend: str = "auto"

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints frame_features [B, T, D], tokens
        [B, 1 + T, D] with the class token first, pre_logits [B, head_width]."""
        b, t = video.shape[:2]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        frames, _ = self.image_features(video.reshape(b * t, *video.shape[2:]), train)
        d = frames.shape[-1]
        frames = frames.reshape(b, t, d)
        endpoints = {"frame_features": frames}
        x = self._embed(frames.astype(self.dtype), train)
        block = partial(
            LongformerBlock,
            self.heads,
            self.mlp_width,
            self.window,
            dropout=self.encoder_dropout,
            attention_dropout=self.attention_dropout,
            backend=self.backend,
            initializer_range=self.initializer_range,
            **types,
        )
        x, _ = apply_blocks(block, x, self.depth, train, scan=self.scan, remat=self.remat)
        endpoints["tokens"] = x
        x = LayerNorm(1e-5, name="head_norm", **types)(x[:, 0])
        init = nn.initializers.truncated_normal(self.initializer_range)
        x = gelu(nn.Dense(self.head_width or d, kernel_init=init, name="head_fc", **types)(x))
        return self.classify(x.astype(jnp.float32), endpoints, train)

    def _embed(self, frames: jax.Array, train: bool) -> jax.Array:
        """Maps frames [B, T, D] to tokens [B, 1 + T, D].

        Prepends the class token, adds type and position embeddings and normalizes.
        """
        b, t, d = frames.shape
        init = nn.initializers.truncated_normal(self.initializer_range)
        table = lambda name, rows: self.param(name, init, (rows, d), self.param_dtype)  # noqa: E731
        cls = self.param("cls_token", nn.initializers.normal(1.0), (1, 1, d), self.param_dtype)
        places, kinds = table("pos_embed", self.positions), table("type_embed", 2)
        cycle = self.positions - 2
        number = jnp.arange(t) * self.stride
        if train:
            latest = max(cycle - (t - 1) * self.stride, 1)
            number += jax.random.randint(self.make_rng("dropout"), (), 0, latest)
        number = jnp.concatenate([jnp.full((1,), cycle), number % cycle])
        kind = (np.arange(1 + t) == 0).astype(np.int32)
        x = jnp.concatenate([jnp.broadcast_to(cls.astype(frames.dtype), (b, 1, d)), frames], axis=1)
        x += (places[number] + kinds[kind])[None].astype(x.dtype)
        x = LayerNorm(EPSILON, dtype=self.dtype, param_dtype=self.param_dtype, name="embed_norm")(x)
        return nn.Dropout(self.encoder_dropout, deterministic=not train)(x)


register_model(
    ModelSpec(
        rules=RULES,
        name="vtn_vit_b_16",
        family="vtn",
        module=VTN,
        preset=dict(trunk="vit_b_16"),
        tiny=dict(trunk_options=dict(tiny=True), depth=2, heads=2, mlp_width=32, window=4, positions=12),
        input_shape=(250, 224, 224, 3),
        tiny_input_shape=(6, 32, 32, 3),
        paper="Video Transformer Network",
        year=2021,
        arxiv="2102.00719",
        temporal="sliding-window attention over frame features, with a global class token",
        order_aware=True,
        fps=25.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        results=(
            Result("Kinetics-400", 77.72, 93.24, "1x1", "PySlowFast model zoo: 250 frames, ImageNet-21k"),
        ),
        params=113_502_352,
        weights="vtn; torchvision, timm (trunk)",
        licence="Apache-2.0; BSD-3-Clause, Apache-2.0",
    )
)
