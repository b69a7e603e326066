"""VideoMAE's plain ViT on tubelets, as a classifier of clips.

Papers: Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video
Pre-Training", NeurIPS 2022, arXiv:2203.12602; g: Wang et al., "VideoMAE V2: Scaling Video Masked Autoencoders
with Dual Masking", CVPR 2023, arXiv:2303.16727. Input: 16 frames, 224 x 224.
Joint space-time attention over tubelets of 2 x 16 x 16 at fixed sine-cosine positions, without class token:
the classifier takes the mean of the tokens. Every LayerNorm has the authors' epsilon of 1e-6; transformers'
configuration has 1e-12 in the blocks (`epsilon`) and 1e-5 in the last norm (`head_epsilon`).
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import RULES, Block, PatchEmbed, TokenGrid, apply_blocks, sincos_positions
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model

# The encoders; parameters at 400 classes, GMACs, and accuracy on Kinetics-400.
PRESETS = {
    "videomae_s": dict(
        width=384,
        depth=12,
        heads=6,
        mlp_width=1536,
        patch=16,
        params=22_033_936,
        gmacs=56.88,
        top1=79.0,
        top5=93.8,
    ),
    "videomae_b": dict(
        width=768,
        depth=12,
        heads=12,
        mlp_width=3072,
        patch=16,
        params=86_534_800,
        gmacs=180.35,
        top1=81.5,
        top5=95.1,
    ),
    "videomae_l": dict(
        width=1024,
        depth=24,
        heads=16,
        mlp_width=4096,
        patch=16,
        params=304_270_736,
        gmacs=596.8,
        top1=85.2,
        top5=96.8,
    ),
    "videomae_h": dict(
        width=1280,
        depth=32,
        heads=16,
        mlp_width=5120,
        patch=16,
        params=632_119_440,
        gmacs=1191.0,
        top1=86.6,
        top5=97.1,
    ),
    "videomae_v2_g": dict(
        width=1408,
        depth=40,
        heads=16,
        mlp_width=6144,
        patch=14,
        params=1_012_174_352,
        gmacs=2542.8,
        top1=88.4,
        top5=98.0,
    ),
}


def encoder_fields(name: str) -> dict[str, Any]:
    """Returns the fields of the encoder that `name` of `PRESETS` describes."""
    preset = PRESETS[name]
    sizes = {k: preset[k] for k in ("width", "depth", "heads", "mlp_width")}
    return dict(**sizes, patch=(2, preset["patch"], preset["patch"]))


class VideoMAE(nn.Module):
    """The encoder of VideoMAE with a classifier.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the pooled, normalized features.
      width, depth, heads, mlp_width: D, L, H and the hidden width of the MLPs.
      patch: frames, height and width of a tubelet.
      epsilon, head_epsilon: of the blocks' LayerNorms and of that on the pooled features.
      head_scale: factor on the initial weights of the classifier; 0.001 in the recipes.
      dropout: dropout rate before the classifier.
      drop_path: drop path rate of the last block, rising linearly from 0 at the first.
      backend: attention backend, see `vidjax.layers.attention`.
      scan, remat: see `vidjax.layers.transformer`.
      return_attention: adds the endpoint `attention` [L, B, H, N, N].
      dtype, param_dtype: dtypes of the computation and of the parameters.
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
        """Returns the layout of the tokens of a clip (T, H, W, C)."""
        t, h, w = (size // p for size, p in zip(input_shape, self.patch))
        return TokenGrid((t, h, w))

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints (tokens [B, N, D] of the last
        block; pre_logits [B, D], their mean, normed)."""
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

for _name, _preset in PRESETS.items():
    _second = _name == "videomae_v2_g"
    _source = "VideoMAE V2, labeled Kinetics-710 between" if _second else "VideoMAE, 1600 epochs"
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="videomae",
            module=VideoMAE,
            preset=encoder_fields(_name),
            tiny=dict(width=16, depth=2, heads=2, mlp_width=32, patch=(2, 8, 8)),
            input_shape=(16, 224, 224, 3),
            tiny_input_shape=(4, 16, 16, 3),
            temporal="joint space-time attention",
            order_aware=True,
            stride=4,
            fps=30,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("Kinetics-400", _preset["top1"], _preset["top5"], "5x3", _source),),
            **_PAPERS[_second],
        )
    )
