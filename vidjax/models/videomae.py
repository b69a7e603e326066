"""VideoMAE's plain ViT on tubelets, as a classifier of clips.

Papers: Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video
Pre-Training", NeurIPS 2022, arXiv:2203.12602; g: Wang et al., "VideoMAE V2: Scaling Video Masked Autoencoders
with Dual Masking", CVPR 2023, arXiv:2303.16727. Input: 16 frames, 224 x 224.
Joint space-time attention over tubelets of 2 x 16 x 16 at fixed sine-cosine positions, no class token: the
classifier is on the mean of the tokens. Every LayerNorm has the authors' epsilon of 1e-6; transformers'
configuration has 1e-12 in the blocks (`epsilon`) and 1e-5 in the last norm (`head_epsilon`).
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import Block, PatchEmbed, TokenGrid, apply_blocks, sincos_positions
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model

# name: width, depth, heads, MLP width, patch, parameters at 400 classes, GMACs, Kinetics-400 top-1, top-5
PRESETS = {
    "videomae_s": (384, 12, 6, 1536, 16, 22_033_936, 56.88, 79.0, 93.8),
    "videomae_b": (768, 12, 12, 3072, 16, 86_534_800, 180.35, 81.5, 95.1),
    "videomae_l": (1024, 24, 16, 4096, 16, 304_270_736, 596.8, 85.2, 96.8),
    "videomae_h": (1280, 32, 16, 5120, 16, 632_119_440, 1191.0, 86.6, 97.1),
    "videomae_v2_g": (1408, 40, 16, 6144, 14, 1_012_174_352, 2542.8, 88.4, 98.0),
}


class VideoMAE(nn.Module):
    """The encoder of VideoMAE with a classifier.

    Attributes:
      num_classes: K; 0 leaves out the classifier and returns the pooled, normed features.
      width, depth, heads, mlp_width: D, L, H and the hidden width of the MLPs.
      patch: frames, height and width of a tubelet.
      epsilon, head_epsilon: of the blocks' LayerNorms and of that on the pooled features.
      head_scale: factor on the initial weights of the classifier; the recipes have 0.001.
      dropout: rate before the classifier.
      drop_path: rate of the last block, rising from 0 at the first.
      backend: of attention, see `vidjax.layers.attention`.
      scan, remat: see `vidjax.layers.transformer`.
      return_attention: adds the endpoint `attention` [L, B, H, N, N].
      dtype, param_dtype: of the computation and of the parameters.
    """

    num_classes: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: Sequence[int] = (2, 16, 16)
    epsilon: float = 1e-6
    head_epsilon: float = 1e-6
    head_scale: float = 1.0
    dropout: float = 0.0
    drop_path: float = 0.0
    backend: str = "auto"
    scan: bool = False
    remat: str = "none"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def token_grid(self, input_shape: Sequence[int]) -> TokenGrid:
        """Where the tokens of a clip (T, H, W, C) lie."""
        t, h, w = (size // p for size, p in zip(input_shape, self.patch))
        return TokenGrid((t, h, w))

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Video [B, T, H, W, C] -> logits float32 [B, K] and endpoints (tokens [B, N, D] of the last block;
        pre_logits [B, D], their mean, normed)."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = PatchEmbed(self.width, self.patch, name="patch_embed", **types)(video)
        x = x.reshape(x.shape[0], -1, self.width)
        x += jnp.asarray(sincos_positions(x.shape[1], self.width), x.dtype)[None]
        block = functools.partial(
            Block,
            self.heads,
            self.mlp_width,
            qkv_bias="qv",
            epsilon=self.epsilon,
            backend=self.backend,
            return_attention=self.return_attention,
            **types,
        )
        x, endpoints = apply_blocks(
            block, x, self.depth, train, drop_path=self.drop_path, scan=self.scan, remat=self.remat
        )
        endpoints["tokens"] = x
        x = x.astype(jnp.float32).mean(1)
        x = LayerNorm(self.head_epsilon, param_dtype=self.param_dtype, name="fc_norm")(x)
        endpoints["pre_logits"] = x
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            init = nn.initializers.truncated_normal(0.02 * self.head_scale)
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, kernel_init=init, name="head")(x)
        return x, endpoints


_PAPERS = {
    False: dict(
        paper="VideoMAE: Masked Autoencoders are Data-Efficient Learners",
        year=2022,
        arxiv="2203.12602",
        weights="videomae, transformers",
        licence="CC-BY-NC-4.0",
    ),
    True: dict(
        paper="VideoMAE V2: Scaling Video Masked Autoencoders",
        year=2023,
        arxiv="2303.16727",
        weights="videomae",
        licence="MIT",
    ),
}

for _name, (_width, _depth, _heads, _mlp, _patch, _params, _gmacs, _top1, _top5) in PRESETS.items():
    _second = _name == "videomae_v2_g"
    _source = "VideoMAE V2, labelled Kinetics-710 between" if _second else "VideoMAE, 1600 epochs"
    register_model(
        ModelSpec(
            name=_name,
            family="videomae",
            module=VideoMAE,
            preset=dict(width=_width, depth=_depth, heads=_heads, mlp_width=_mlp, patch=(2, _patch, _patch)),
            tiny=dict(width=16, depth=2, heads=2, mlp_width=32, patch=(2, 8, 8)),
            input_shape=(16, 224, 224, 3),
            tiny_input_shape=(4, 16, 16, 3),
            temporal="joint space-time attention",
            order_aware=True,
            stride=4,
            fps=30,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            params=_params,
            gmacs=_gmacs,
            results=(Result("Kinetics-400", _top1, _top5, "5x3", _source),),
            **_PAPERS[_second],
        )
    )
