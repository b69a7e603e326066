"""MAE-ST's ViT on tubelets, as a classifier of clips.

Paper: Feichtenhofer et al., "Masked Autoencoders As Spatiotemporal Learners", NeurIPS 2022, arXiv:2205.09113,
section 3 and appendix A. Input: 16 frames, 224 x 224. Joint space-time attention over a class token and
tubelets of 2 x 16 x 16, at learned positions of space plus time; the classifier is on the normed mean of the
tubelets' tokens, the class token left out. The encoder's parameters are named as in
`vidjax.models.masked.mae`.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import KERNEL_INIT, RULES, Block, PatchEmbed, TokenGrid, apply_blocks
from vidjax.models.masked import videomae
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model


def check_clip(module: nn.Module, shape: Sequence[int]) -> None:
    """Raises ValueError if a clip (T, H, W) has another size than the position tables, or more frames."""
    frames, size = module.frames, module.size
    if shape[0] > frames or tuple(shape[1:]) != (size, size):
        raise ValueError(
            f"its learned positions are for {frames}x{size}x{size}: set model.options.frames and .size"
        )


def add_positions(
    module: nn.Module, x: jax.Array, numbers: jax.Array, prefix: str = "", cls: jax.Array | None = None
) -> jax.Array:
    """Adds learned positions to tokens and prepends a class token.

    Args:
      module: the module that owns the tables; has `frames`, `size` and `patch`.
      x: [B, N, D].
      numbers: token indices int32 [B, N], time first.
      prefix: prefix of the names of the tables.
      cls: class token [B, 1, D]; a learned one if None.

    Returns:
      [B, 1 + N, D].
    """
    d, side = x.shape[-1], module.size // module.patch[1]
    place = side * (module.size // module.patch[2])

    def table(name: str, rows: int) -> jax.Array:
        shape = (1, rows, d)
        p = module.param(f"{prefix}pos_embed_{name}", KERNEL_INIT, shape, module.param_dtype)
        return p.astype(x.dtype)

    space, time = table("spatial", place), table("temporal", module.frames // module.patch[0])
    x = x + space[0][numbers % place] + time[0][numbers // place]
    if cls is None:
        cls = module.param("cls_token", KERNEL_INIT, (1, 1, d), module.param_dtype).astype(x.dtype)
        cls = jnp.broadcast_to(cls, (x.shape[0], 1, d))
    return jnp.concatenate([cls + table("class", 1), x], axis=1)


class MAEST(nn.Module):
    """The encoder of MAE-ST with a classifier.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the pooled, normalized features.
      width, depth, heads, mlp_width: D, L, H and the hidden width of the MLPs.
      patch: frames, height and width of a tubelet.
      frames, size: frames and size of the clips that the position tables are for.
      head_scale: factor on the initial weights of the classifier; 0.001 in the recipe.
      dropout: dropout rate before the classifier.
      drop_path: drop path rate of the last block, rising linearly from 0 at the first.
      epsilon: of all LayerNorms.
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
    frames: int = 16
    size: int = 224
    head_scale: float = 1.0
    dropout: float = 0.0
    drop_path: float = 0.0
    epsilon: float = 1e-6
    backend: str = "auto"
    scan: bool = False
    remat: str = "none"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def token_grid(self, input_shape: Sequence[int]) -> TokenGrid:
        """Returns the layout of the tokens of a clip (T, H, W, C)."""
        return TokenGrid(tuple(size // p for size, p in zip(input_shape, self.patch)), prefix=1)

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints (tokens [B, 1 + N, D] of the last
        block, the class token first; pre_logits [B, D], the normed mean of the others).

        Raises:
          ValueError: as `check_clip`.
        """
        check_clip(self, video.shape[1:4])
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = PatchEmbed(self.width, self.patch, name="patch_embed", **types)(video)
        x = x.reshape(x.shape[0], -1, self.width)
        x = add_positions(self, x, jnp.broadcast_to(jnp.arange(x.shape[1])[None], x.shape[:2]))
        block = functools.partial(
            Block,
            self.heads,
            self.mlp_width,
            epsilon=self.epsilon,
            backend=self.backend,
            return_attention=self.return_attention,
            **types,
        )
        x, endpoints = apply_blocks(
            block, x, self.depth, train, drop_path=self.drop_path, scan=self.scan, remat=self.remat
        )
        endpoints["tokens"] = x
        x = x[:, 1:].astype(jnp.float32).mean(1)
        x = endpoints["pre_logits"] = LayerNorm(self.epsilon, param_dtype=self.param_dtype, name="norm")(x)
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            init = nn.initializers.truncated_normal(0.02 * self.head_scale)
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, kernel_init=init, name="head")(x)
        return x, endpoints


for _name, _top1 in (("b", 81.3), ("l", 84.8), ("h", 85.1)):
    register_model(
        ModelSpec(
            rules=RULES,
            name=f"mae_st_{_name}",
            family="mae_st",
            module=MAEST,
            preset=videomae.encoder_fields(f"videomae_{_name}"),
            tiny=dict(width=16, depth=2, heads=2, mlp_width=32, patch=(2, 8, 8), frames=8, size=32),
            input_shape=(16, 224, 224, 3),
            tiny_input_shape=(4, 32, 32, 3),
            paper="Masked Autoencoders As Spatiotemporal Learners",
            year=2022,
            arxiv="2205.09113",
            temporal="joint space-time attention",
            order_aware=True,
            stride=4,
            fps=30,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            results=(Result("Kinetics-400", _top1, None, "7x3", "PySlowFast, MAE project"),),
        )
    )
