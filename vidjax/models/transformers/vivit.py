"""ViViT: four transformers on the tubelets of a clip.

Paper: Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021, arXiv:2103.15691. Section 3.2: tubelets;
section 3.3 and figures 3 to 6: the four models; tables 1 and 6: the results. Input: 32 frames of 224x224,
every second one, cut into tubelets of 2x16x16; L has the widths of ViT-L.

  1  ViViT                full attention with a class token
  2  FactorisedEncoder    a ViT on each of the T' slices, then 4 more layers on the slices' class tokens
  3  FactorisedAttention  in each block over space, then over time; the average of the tokens
  4  FactorisedHeads      in each block half of the heads over space, half over time; the average as well

Section 3.2's "uniform frame sampling" is `embedding="uniform"`: of each tubelet the central frame alone, so
that a tubelet embedding of central frames (section 3.4) begins as it. GELU is the tanh approximation and the
classifier starts at zero, as in the authors' release (scenic). Deviation: where image weights start model 3,
only the last projection of its temporal attention is zero; the paper sets all of that attention's weights to
zero, from where nothing but the projection's bias would ever have a gradient.
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.errors import UserError, unknown
from vidjax.layers.attention import attention, attention_weights
from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import (
    RULES,
    XAVIER,
    Attention,
    Block,
    DropPath,
    Mlp,
    PatchEmbed,
    TokenGrid,
    apply_blocks,
    interpolate_positions,
)
from vidjax.registry import ModelSpec, Result, register_model

Output = tuple[jax.Array, dict[str, jax.Array]]
Grid = tuple[int, int, int]
EMBEDDINGS = ("tubelet", "uniform")
NORMAL = nn.initializers.normal(0.02)


class SpaceThenTime(nn.Module):
    """Model 3's block (equations 4 to 6): attention over space, attention over time, an MLP.

    Parameters: norm1, attn, norm2, mlp as in `Block`, whose fields these are; time_norm, time_attn.
    """

    grid: Grid
    heads: int
    mlp_width: int
    tanh_gelu: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    backend: str = "auto"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_path: float | jax.Array = 0.0) -> Output:
        """Maps [B, T'N, D] to the same shape; with `return_attention` attention [B, T', H, N, N] and
        time_attention [B, N, H, T', T']."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        shared = dict(backend=self.backend, return_attention=self.return_attention, **types)
        drops = dict(dropout=self.dropout, attention_dropout=self.attention_dropout)
        b, _, d = x.shape
        weights = {}
        for prefix, norm in (("", "norm1"), ("time_", "time_norm")):
            y = LayerNorm(name=norm, **types)(x).reshape(b, self.grid[0], -1, d)
            y = y.swapaxes(1, 2) if prefix else y  # [B, groups, tokens of a group, D]
            groups, n = y.shape[1:3]
            attend = Attention(self.heads, **drops, **shared, kernel_init=XAVIER, name=f"{prefix}attn")
            y, maps = attend(y.reshape(-1, n, d), train)
            y = y.reshape(b, groups, n, d)
            y = (y.swapaxes(1, 2) if prefix else y).reshape(x.shape)
            x += DropPath(name=f"drop_path_{prefix}attn")(y, drop_path, train)
            if maps is not None:
                weights[f"{prefix}attention"] = maps.reshape(b, groups, self.heads, n, n)
        y = LayerNorm(name="norm2", **types)(x)
        y = Mlp(self.mlp_width, self.tanh_gelu, self.dropout, kernel_init=XAVIER, name="mlp", **types)(
            y, train
        )
        return x + DropPath(name="drop_path_mlp")(y, drop_path, train), weights


class SplitHeads(nn.Module):
    """Model 4's attention (section 3.3.4): the first half of the heads attends over space, the second over
    time. Parameters as `Attention`'s, as many as without the factorisation."""

    grid: Grid
    heads: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    backend: str = "auto"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Output:
        """Maps [B, T'N, D] to the same shape, and the weights, as `SpaceThenTime`'s with H / 2 heads each."""
        b, _, d = x.shape
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=XAVIER)
        qkv = nn.Dense(3 * d, name="qkv", **types)(x)
        qkv = qkv.reshape(b, self.grid[0], -1, 3, 2, self.heads // 2, d // self.heads)
        dropout = self.attention_dropout if train else 0.0
        out, weights = [], {}
        for half, name in enumerate(("attention", "time_attention")):
            part = qkv[:, :, :, :, half]
            part = part.swapaxes(1, 2) if half else part  # [B, groups, tokens of a group, 3, H / 2, D / H]
            groups, n = part.shape[1:3]
            q, k, v = (part[:, :, :, i].reshape(b * groups, n, *part.shape[4:]) for i in range(3))
            rng = self.make_rng("dropout") if dropout else None
            y = attention(q, k, v, backend=self.backend, dropout=dropout, rng=rng)
            y = y.reshape(b, groups, n, d // 2)
            out.append((y.swapaxes(1, 2) if half else y).reshape(b, -1, d // 2))
            if self.return_attention:
                weights[name] = attention_weights(q, k).reshape(b, groups, -1, n, n)
        y = nn.Dense(d, name="proj", **types)(jnp.concatenate(out, axis=-1))
        return nn.Dropout(self.dropout, deterministic=not train)(y), weights


class SplitHeadsBlock(SpaceThenTime):
    """Model 4's block: norm1, attn (`SplitHeads`), norm2, mlp."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_path: float | jax.Array = 0.0) -> Output:
        """As `SpaceThenTime`, with H / 2 heads in each of the maps."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        attend = SplitHeads(
            self.grid,
            self.heads,
            self.dropout,
            self.attention_dropout,
            self.backend,
            self.return_attention,
            name="attn",
            **types,
        )
        y, weights = attend(LayerNorm(name="norm1", **types)(x), train)
        x += DropPath(name="drop_path_attn")(y, drop_path, train)
        y = LayerNorm(name="norm2", **types)(x)
        y = Mlp(self.mlp_width, self.tanh_gelu, self.dropout, kernel_init=XAVIER, name="mlp", **types)(
            y, train
        )
        return x + DropPath(name="drop_path_mlp")(y, drop_path, train), weights


class ViViT(nn.Module):
    """Model 1: spatio-temporal attention. The other models share its fields.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the pooled tokens.
      frames, size: frames and size of clips that positions are learned for; interpolated for others.
      tubelet, patch: extent of a tubelet in time and in space.
      embedding: "tubelet", or "uniform": of its central frame alone.
      width, depth, heads, mlp_width: of the encoder.
      tanh_gelu: GELU by its tanh approximation.
      dropout, attention_dropout, drop_path: rates; drop path rises linearly to the last block.
      scan, remat, backend: see `layers.transformer.apply_blocks` and `layers.attention`.
      return_attention: add the attention maps to the endpoints, stacked over layers.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    frames: int = 32
    size: int = 224
    tubelet: int = 2
    patch: int = 16
    embedding: str = "tubelet"
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    tanh_gelu: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = False
    remat: str = "none"
    backend: str = "auto"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    class_token = True

    def token_grid(self, input_shape: tuple[int, ...]) -> TokenGrid:
        """Returns the layout of the tokens of a clip (T, H, W, C)."""
        t, h, w, _ = input_shape
        return TokenGrid((t // self.tubelet, h // self.patch, w // self.patch), int(self.class_token))

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints tokens [B, 1 + T'N, D], the class
        token first in models 1 and 2's; pre_logits [B, D]."""
        x, grid = self.embed(video)
        x = x.reshape(x.shape[0], -1, self.width)
        x = self.with_class_token(x) if self.class_token else x
        table = (self.frames // self.tubelet, *(self.size // self.patch,) * 2)
        x = self.with_positions(x, table, grid)
        x, endpoints = self.encode(x, self.depth, self.block(grid), train)
        x = endpoints["tokens"] = LayerNorm(name="norm", **self.types())(x)
        return self.classify(x[:, 0] if self.class_token else x.mean(1), endpoints)

    def block(self, grid: Grid) -> partial:
        """Returns the constructor of an encoder block."""
        return partial(Block, kernel_init=XAVIER, **self.block_fields())

    def embed(self, video: jax.Array) -> tuple[jax.Array, Grid]:
        """Returns tokens [B, T', H', W', D] and the grid (T', H', W')."""
        if self.embedding not in EMBEDDINGS:
            raise unknown("embedding", self.embedding, EMBEDDINGS)
        depth = self.tubelet
        if self.embedding == "uniform":
            whole = video.shape[1] // depth * depth
            video, depth = video[:, depth // 2 : whole : depth], 1
        patch = (depth, self.patch, self.patch)
        x = PatchEmbed(self.width, patch, name="patch_embed", **self.types())(video)
        return x, x.shape[1:4]

    def with_class_token(self, x: jax.Array, prefix: str = "") -> jax.Array:
        """Maps [B, N, D] to [B, 1 + N, D]."""
        cls = self.param(f"{prefix}cls_token", nn.initializers.zeros, (1, 1, self.width), self.param_dtype)
        return jnp.concatenate(
            [jnp.broadcast_to(cls.astype(x.dtype), (x.shape[0], 1, self.width)), x], axis=1
        )

    def with_positions(
        self, x: jax.Array, table: tuple[int, ...], grid: tuple[int, ...], prefix: str = ""
    ) -> jax.Array:
        """Adds positions learned on the grid `table`, interpolated to `grid` except for a class token's."""
        first = int(self.class_token)
        rows = first + math.prod(table)
        positions = self.param(f"{prefix}pos_embed", NORMAL, (1, rows, self.width), self.param_dtype)
        return x + interpolate_positions(positions[0], table, grid, first)[None].astype(x.dtype)

    def encode(self, x: jax.Array, depth: int, block: partial, train: bool, name: str = "block") -> Output:
        """Applies dropout and `depth` blocks."""
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        plan = dict(drop_path=self.drop_path, scan=self.scan, remat=self.remat, name=name)
        return apply_blocks(block, x, depth, train, **plan)

    def classify(self, x: jax.Array, endpoints: dict[str, jax.Array]) -> Output:
        """Applies the linear classifier to features [B, D]."""
        x = endpoints["pre_logits"] = x.astype(jnp.float32)
        if self.num_classes:
            zeros = nn.initializers.zeros
            x = nn.Dense(self.num_classes, kernel_init=zeros, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints

    def types(self) -> dict[str, DTypeLike]:
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    def block_fields(self) -> dict[str, object]:
        return dict(
            heads=self.heads,
            mlp_width=self.mlp_width,
            tanh_gelu=self.tanh_gelu,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            backend=self.backend,
            return_attention=self.return_attention,
            **self.types(),
        )


class FactorisedEncoder(ViViT):
    """Model 2 (section 3.3.2): `depth` layers within each slice of tubelets, then `time_depth` layers on the
    class tokens of the slices. Parameters of the second encoder: time_cls_token, time_pos_embed,
    time_block{i}, time_norm."""

    time_depth: int = 4

    def token_grid(self, input_shape: tuple[int, ...]) -> TokenGrid:
        """Returns the layout of the tokens of a clip (T, H, W, C), without the class tokens of the slices."""
        t, h, w, _ = input_shape
        return TokenGrid((t // self.tubelet, h // self.patch, w // self.patch))

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints tokens [B, T'N, D] of the spatial
        encoder, time_tokens [B, 1 + T', D] and pre_logits [B, D]; attention is [L, B, T', H, 1 + N, 1 + N],
        time_attention [L, B, H, 1 + T', 1 + T']."""
        x, (t, *grid) = self.embed(video)
        b, d = x.shape[0], self.width
        x = self.with_class_token(x.reshape(b * t, -1, d))
        x = self.with_positions(x, (self.size // self.patch,) * 2, tuple(grid))
        block = partial(Block, kernel_init=XAVIER, **self.block_fields())
        x, endpoints = self.encode(x, self.depth, block, train)
        endpoints = {k: m.reshape(m.shape[0], b, t, *m.shape[2:]) for k, m in endpoints.items()}
        x = LayerNorm(name="norm", **self.types())(x)
        endpoints["tokens"] = x[:, 1:].reshape(b, -1, d)

        x = self.with_class_token(x[:, 0].reshape(b, t, d), "time_")
        x = self.with_positions(x, (self.frames // self.tubelet,), (t,), "time_")
        x, maps = self.encode(x, self.time_depth, block, train, "time_block")
        endpoints |= {f"time_{k}": m for k, m in maps.items()}
        x = endpoints["time_tokens"] = LayerNorm(name="time_norm", **self.types())(x)
        return self.classify(x[:, 0], endpoints)


class FactorisedAttention(ViViT):
    """Model 3 (section 3.3.3)."""

    class_token = False

    def block(self, grid: Grid) -> partial:
        return partial(SpaceThenTime, grid, **self.block_fields())


class FactorisedHeads(ViViT):
    """Model 4 (section 3.3.4)."""

    class_token = False

    def block(self, grid: Grid) -> partial:
        if self.heads % 2:
            raise UserError(f"half of the heads attend over time: heads must be even, got {self.heads}")
        return partial(SplitHeadsBlock, grid, **self.block_fields())


_B, _L = {}, dict(width=1024, depth=24, heads=16, mlp_width=4096)
_TABLE = "arXiv:2103.15691, table {}"
_FLAX = "scenic, projects/vivit"
# Class and its fields; parameters, GMACs and accuracy on Kinetics-400 as published; available weights.
_PRESETS = {
    "vivit_b_16x2": dict(
        module=ViViT,
        fields=_B,
        params=88_954_000,
        gmacs=451.5,
        top1=79.9,
        top5=None,
        source=_FLAX,
        weights="transformers, google/vivit-b-16x2-kinetics400; scenic",
    ),
    "vivit_b_16x2_fe": dict(
        module=FactorisedEncoder,
        fields=_B,
        params=115_062_928,
        gmacs=None,
        top1=78.4,
        top5=None,
        source=_FLAX,
        weights="scenic",
    ),
    "vivit_b_16x2_fsa": dict(
        module=FactorisedAttention,
        fields=_B,
        params=117_319_312,
        gmacs=None,
        top1=77.4,
        top5=None,
        source=_TABLE.format(1),
        weights="",
    ),
    "vivit_b_16x2_fdp": dict(
        module=FactorisedHeads,
        fields=_B,
        params=88_952_464,
        gmacs=None,
        top1=76.3,
        top5=None,
        source=_TABLE.format(1),
        weights="",
    ),
    "vivit_l_16x2": dict(
        module=ViViT,
        fields=_L,
        params=307_508_624,
        gmacs=None,
        top1=80.6,
        top5=94.7,
        source=_TABLE.format("6a"),
        weights="",
    ),
    "vivit_l_16x2_fe": dict(
        module=FactorisedEncoder,
        fields=_L,
        params=354_903_440,
        gmacs=None,
        top1=80.3,
        top5=None,
        source=_FLAX,
        weights="scenic",
    ),
}
_TEMPORAL = {
    ViViT: "attention: joint over all tubelets",
    FactorisedEncoder: "a temporal transformer over the class tokens of frames",
    FactorisedAttention: "attention: space then time",
    FactorisedHeads: "attention: half of the heads over time",
}

for _name, _preset in _PRESETS.items():
    _small = dict(time_depth=1) if _preset["module"] is FactorisedEncoder else {}
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="vivit",
            module=_preset["module"],
            preset=_preset["fields"],
            tiny=dict(frames=4, size=32, patch=8, width=16, depth=2, heads=2, mlp_width=32, **_small),
            input_shape=(32, 224, 224, 3),
            tiny_input_shape=(4, 32, 32, 3),
            paper="ViViT: A Video Vision Transformer",
            year=2021,
            arxiv="2103.15691",
            temporal=_TEMPORAL[_preset["module"]],
            order_aware=True,
            stride=2,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("Kinetics-400", _preset["top1"], _preset["top5"], "4x3", _preset["source"]),),
            weights=_preset["weights"],
            licence="MIT; Apache-2.0"
            if "transformers" in _preset["weights"]
            else "Apache-2.0"
            if _preset["weights"]
            else "",
            inflates="vit_l_16" if _preset["fields"] else "vit_b_16",
        )
    )
