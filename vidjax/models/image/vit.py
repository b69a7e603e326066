"""Vision Transformer, an image backbone and the source of pretrained weights of video transformers.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929, Table 1; S is of
Touvron et al., arXiv:2012.12877. Input: images [B, H, W, C]. The classifier is one linear layer on the class
token (the paper's fine-tuning head), as in torchvision and timm, whose weights it loads.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import (
    RULES,
    XAVIER,
    Block,
    PatchEmbed,
    TokenGrid,
    apply_blocks,
    interpolate_positions,
)
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, register_model

# Table 1; parameters at 1000 classes and GMACs at 224x224 (torchvision; S: timm).
PRESETS = {
    "vit_s_16": dict(width=384, depth=12, heads=6, patch=16, params=22_050_664, gmacs=None),
    "vit_b_16": dict(width=768, depth=12, heads=12, patch=16, params=86_567_656, gmacs=17.564),
    "vit_b_32": dict(width=768, depth=12, heads=12, patch=32, params=88_224_232, gmacs=4.409),
    "vit_l_16": dict(width=1024, depth=24, heads=16, patch=16, params=304_326_632, gmacs=61.555),
}


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, an encoder.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the class token.
      width, depth, heads: D, L and H.
      patch: height and width of a patch.
      mlp_width: hidden width of the MLPs; 4 D where None.
      position_grid: grid (H', W') of the learned positions, where it is not the input's: they are
        interpolated to that.
      epsilon: of every LayerNorm.
      dropout, drop_path: rates within the blocks; that of drop path rises from 0 at the first block.
      backend: attention backend, see `vidjax.layers.attention`.
      scan, remat: see `vidjax.layers.transformer`.
      return_attention: adds the endpoint `attention` [L, B, H, N, N].
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    width: int
    depth: int
    heads: int
    patch: int = 16
    mlp_width: int | None = None
    position_grid: Sequence[int] | None = None
    epsilon: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    backend: str = "auto"
    scan: bool = False
    remat: str = "none"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def token_grid(self, input_shape: Sequence[int]) -> TokenGrid:
        """Returns the layout of the tokens of an image (H, W, C)."""
        return TokenGrid((1, input_shape[0] // self.patch, input_shape[1] // self.patch), prefix=1)

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images [B, H, W, C] to logits float32 [B, K] and endpoints (tokens [B, 1 + N, D] with the
        class token first, pre_logits [B, D])."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = PatchEmbed(self.width, (self.patch, self.patch), name="patch_embed", **types)(image)
        b, *grid, _ = x.shape
        cls = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, self.width), self.param_dtype)
        rows = 1 + functools.reduce(lambda a, b: a * b, self.position_grid or grid)
        pos = self.param(
            "pos_embed", nn.initializers.truncated_normal(0.02), (1, rows, self.width), self.param_dtype
        )
        pos = interpolate_positions(pos[0], self.position_grid or grid, grid, prefix=1)[None]
        cls = jnp.broadcast_to(cls.astype(x.dtype), (b, 1, self.width))
        x = jnp.concatenate([cls, x.reshape(b, -1, self.width)], axis=1) + pos.astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        block = functools.partial(
            Block,
            self.heads,
            self.mlp_width or 4 * self.width,
            epsilon=self.epsilon,
            dropout=self.dropout,
            backend=self.backend,
            return_attention=self.return_attention,
            kernel_init=XAVIER,
            **types,
        )
        x, endpoints = apply_blocks(
            block, x, self.depth, train, drop_path=self.drop_path, scan=self.scan, remat=self.remat
        )
        x = endpoints["tokens"] = LayerNorm(self.epsilon, name="norm", **types)(x)
        x = endpoints["pre_logits"] = x[:, 0].astype(jnp.float32)
        if self.num_classes:
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints


for _name, _preset in PRESETS.items():
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="vit",
            module=VisionTransformer,
            preset=dict(
                width=_preset["width"], depth=_preset["depth"], heads=_preset["heads"], patch=_preset["patch"]
            ),
            tiny=dict(width=16, depth=2, heads=2, patch=8, mlp_width=32),
            input_shape=(224, 224, 3),
            tiny_input_shape=(32, 32, 3),
            paper="An Image is Worth 16x16 Words",
            year=2021,
            arxiv="2010.11929",
            temporal="none: an image model",
            order_aware=False,
            num_classes=1000,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            weights="timm" if _name == "vit_s_16" else "torchvision, timm",
            licence="Apache-2.0" if _name == "vit_s_16" else "BSD-3-Clause, Apache-2.0",
        )
    )
