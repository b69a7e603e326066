"""TimeSformer: space-time attention in five schemes, among them divided attention.

Paper: Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv:2102.05095. Section 3 and figure 1: the five schemes; table 5: the three models. Input: 8 frames of
224x224, every 32nd (base), 16 of 448x448 (HR), 96 of 224x224 (L); frames are cut into patches of 16x16.

  divided       time, then space (T+S)
  joint         all tokens with all others (ST)
  space         each frame alone, the frames' outputs averaged (S)
  local_global  a quarter of the frame through all of time, then every second token along each axis (L+G)
  axial         time, then width, then height (T+W+H)

A block is one or more attentions and an MLP. The last attention is the image ViT's and has the class token,
of which every group of tokens has a copy; the outputs of the copies are averaged (as released). The
attentions before it exclude the class token and end in a linear layer initialized to zero, so that a video
model is initially equal to the image model (in the release, that of the first block is initialized randomly).
The paper does not specify the class token in L+G and T+W+H, nor the alignment of L's neighborhoods: here the
former is as in T+S, and the latter are quarters of the frame.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.errors import UserError, unknown
from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import RULES, Attention, DropPath, Mlp, PatchEmbed, TokenGrid, apply_blocks
from vidjax.registry import ModelSpec, Result, register_model

Output = tuple[jax.Array, dict[str, jax.Array]]
Grid = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Groups:
    """A partition of tokens [B, T, H, W, D] into groups with attention within each group.

    Attributes:
      split: (T, H, W) -> the sizes of the shape [B, *sizes, D] to see the tokens in, and which of them number
        the groups; the others number the tokens of a group.
    """

    split: Callable[[int, int, int], tuple[tuple[int, ...], tuple[int, ...]]]

    def gather(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, H, W, D] to [B, G, M, D]."""
        sizes, order, groups = self._plan(x.shape[1:4])
        x = x.reshape(x.shape[0], *sizes, x.shape[-1]).transpose(0, *(i + 1 for i in order), len(sizes) + 1)
        return x.reshape(x.shape[0], groups, -1, x.shape[-1])

    def scatter(self, x: jax.Array, grid: Grid) -> jax.Array:
        """Maps [B, G, M, D] to [B, T, H, W, D], the inverse."""
        sizes, order, _ = self._plan(grid)
        x = x.reshape(x.shape[0], *(sizes[i] for i in order), x.shape[-1])
        back = [order.index(i) + 1 for i in range(len(sizes))]
        return x.transpose(0, *back, len(sizes) + 1).reshape(x.shape[0], *grid, x.shape[-1])

    def _plan(self, grid: Grid) -> tuple[tuple[int, ...], list[int], int]:
        sizes, axes = self.split(*grid)
        order = [*axes, *(i for i in range(len(sizes)) if i not in axes)]
        groups = 1
        for i in axes:
            groups *= sizes[i]
        return sizes, order, groups


# "local" splits the frame into 2 x 2 quarters; "global" takes every second token along each axis.
GROUPS = {
    "time": Groups(lambda t, h, w: ((t, h, w), (1, 2))),
    "space": Groups(lambda t, h, w: ((t, h, w), (0,))),
    "joint": Groups(lambda t, h, w: ((t, h, w), ())),
    "width": Groups(lambda t, h, w: ((t, h, w), (0, 1))),
    "height": Groups(lambda t, h, w: ((t, h, w), (0, 2))),
    "local": Groups(lambda t, h, w: ((t, 2, h // 2, 2, w // 2), (1, 3))),
    "global": Groups(lambda t, h, w: ((t // 2, 2, h // 2, 2, w // 2, 2), (1, 3, 5))),
}
# scheme: the attentions of a block, in order; the last is that of the image model
SCHEMES = {
    "divided": ("time", "space"),
    "joint": ("joint",),
    "space": ("space",),
    "local_global": ("local", "global"),
    "axial": ("time", "width", "height"),
}


class SchemeBlock(nn.Module):
    """The attentions of a scheme and an MLP (section 3).

    Parameters: norm1, attn, norm2, mlp as in `layers.transformer.Block`; for each attention before the last
    {time, width, local}_norm, _attn and _fc.
    """

    scheme: str
    grid: Grid
    heads: int
    mlp_width: int
    epsilon: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    backend: str = "auto"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, drop_path: float | jax.Array = 0.0) -> Output:
        """Maps [B, C + THW, D] to the same shape: C class tokens, then patches, time first. One class token;
        for "space" one for each frame. Attention weights [B, G, H, M, M] of the groups with
        `return_attention`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        norm = partial(LayerNorm, self.epsilon, **types)
        attend = partial(
            Attention,
            self.heads,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            backend=self.backend,
            return_attention=self.return_attention,
            **types,
        )
        drop = lambda y, name: DropPath(name=f"drop_path_{name}")(y, drop_path, train)  # noqa: E731
        b, _, d = x.shape
        frames = self.grid[0] if self.scheme == "space" else 1
        cls, patches = x[:, :frames], x[:, frames:].reshape(b, *self.grid, d)
        *before, last = SCHEMES[self.scheme]
        weights = {}

        for kind in before:
            y = GROUPS[kind].gather(norm(name=f"{kind}_norm")(patches))
            y, maps = attend(name=f"{kind}_attn")(y.reshape(-1, *y.shape[2:]), train)
            y = drop(y, kind).reshape(b, -1, *y.shape[1:])
            zeros = nn.initializers.zeros
            y = nn.Dense(d, kernel_init=zeros, name=f"{kind}_fc", **types)(GROUPS[kind].scatter(y, self.grid))
            patches += y
            weights |= {} if maps is None else {f"{kind}_attention": maps.reshape(b, -1, *maps.shape[1:])}

        y = GROUPS[last].gather(patches)
        groups = y.shape[1]
        copies = cls.reshape(b, frames, 1, d)
        copies = copies if frames == groups else jnp.broadcast_to(copies, (b, groups, 1, d))
        y = norm(name="norm1")(jnp.concatenate([copies, y], axis=2))
        y, maps = attend(name="attn")(y.reshape(b * groups, -1, d), train)
        weights |= {} if maps is None else {"attention": maps.reshape(b, groups, *maps.shape[1:])}
        y = drop(y.reshape(b, groups, -1, d), last)
        cls_update = y[:, :, 0] if frames == groups else y[:, :, 0].mean(1, keepdims=True)
        patches += GROUPS[last].scatter(y[:, :, 1:], self.grid)
        x = jnp.concatenate([cls + cls_update, patches.reshape(b, -1, d)], axis=1)

        y = Mlp(self.mlp_width, dropout=self.dropout, name="mlp", **types)(norm(name="norm2")(x), train)
        return x + drop(y, "mlp"), weights


class TimeSformer(nn.Module):
    """TimeSformer.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the class token.
      scheme: see the module.
      frames, size: of the clips that the tables of positions are for; others take the nearest position.
      patch, width, depth, heads, mlp_width: of the image ViT.
      dropout, attention_dropout, drop_path: rates; drop path rises linearly to the last block.
      scan, remat, backend: see `layers.transformer.apply_blocks` and `layers.attention`.
      return_attention: add the attention maps to the endpoints, stacked over layers.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    scheme: str = "divided"
    frames: int = 8
    size: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = False
    remat: str = "none"
    backend: str = "auto"
    return_attention: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def token_grid(self, input_shape: tuple[int, ...]) -> TokenGrid:
        """Returns the layout of the tokens of a clip (T, H, W, C)."""
        t, h, w = input_shape[0], *(n // self.patch for n in input_shape[1:3])
        return TokenGrid((t, h, w), t if self.scheme == "space" else 1)

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints tokens [B, C + THW/p^2, D] and
        pre_logits [B, D]; for "space" C is T, else 1."""
        if self.scheme not in SCHEMES:
            raise unknown("attention scheme", self.scheme, SCHEMES)
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = PatchEmbed(self.width, (1, self.patch, self.patch), name="patch_embed", **types)(video)
        b, grid, d = x.shape[0], x.shape[1:4], self.width
        if self.scheme == "local_global" and any(n % 2 for n in grid):
            raise UserError(f"local_global attention needs an even grid, not {grid} tokens")
        normal = nn.initializers.truncated_normal(0.02)
        side = self.size // self.patch
        cls = self.param("cls_token", normal, (1, 1, d), self.param_dtype)
        space = self.param("pos_embed", normal, (1, 1 + side * side, d), self.param_dtype)
        cls = (cls + space[:, :1]).astype(self.dtype)
        space = _nearest(_nearest(space[:, 1:].reshape(1, side, side, d), grid[1], 1), grid[2], 2)
        x += space.astype(self.dtype).reshape(1, 1, *grid[1:], d)
        if self.scheme != "space":
            zeros = nn.initializers.zeros
            time = self.param("time_embed", zeros, (1, self.frames, d), self.param_dtype)
            x += _nearest(time, grid[0], 1).astype(self.dtype).reshape(1, grid[0], 1, 1, d)

        copies = grid[0] if self.scheme == "space" else 1
        x = jnp.concatenate([jnp.broadcast_to(cls, (b, copies, d)), x.reshape(b, -1, d)], axis=1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        block = partial(
            SchemeBlock,
            self.scheme,
            grid,
            self.heads,
            self.mlp_width,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            backend=self.backend,
            return_attention=self.return_attention,
            **types,
        )
        plan = dict(drop_path=self.drop_path, scan=self.scan, remat=self.remat)
        x, endpoints = apply_blocks(block, x, self.depth, train, **plan)
        norm = LayerNorm(1e-6, name="norm", **types)
        if self.scheme == "space":  # the release averages the frames before the last norm
            x = jnp.concatenate([x[:, :copies].mean(1, keepdims=True), x[:, copies:]], axis=1)
        x = norm(x)
        endpoints["tokens"] = x
        x = endpoints["pre_logits"] = x[:, 0].astype(jnp.float32)
        if self.num_classes:
            init = nn.initializers.truncated_normal(0.02)
            x = nn.Dense(self.num_classes, kernel_init=init, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints


def _nearest(table: jax.Array, count: int, axis: int) -> jax.Array:
    """`count` rows along an axis: each the old one at floor(i * old / count)."""
    old = table.shape[axis]
    return table if count == old else jnp.take(table, jnp.arange(count) * old // count, axis=axis)


_SOURCE = "arXiv:2102.05095, table {}"
_ABLATION = _SOURCE.format(1)
# Fields of the model and its clip; parameters, GMACs and accuracy on Kinetics-400 as published.
_PRESETS = {
    "timesformer_b_8x32": dict(
        fields={},
        frames=8,
        size=224,
        stride=32,
        params=121_566_352,
        gmacs=195.8,
        top1=78.0,
        top5=93.7,
        source=_SOURCE.format(5),
    ),
    "timesformer_hr_16x16": dict(
        fields=dict(frames=16, size=448),
        frames=16,
        size=448,
        stride=16,
        params=122_024_080,
        gmacs=1702.7,
        top1=79.7,
        top5=94.4,
        source=_SOURCE.format(5),
    ),
    "timesformer_l_96x4": dict(
        fields=dict(frames=96),
        frames=96,
        size=224,
        stride=4,
        params=121_633_936,
        gmacs=2379.9,
        top1=80.7,
        top5=94.7,
        source=_SOURCE.format(5),
    ),
    "timesformer_b_8x32_joint": dict(
        fields=dict(scheme="joint"),
        frames=8,
        size=224,
        stride=32,
        params=86_112_400,
        gmacs=179.6,
        top1=77.4,
        top5=None,
        source=_ABLATION,
    ),
    "timesformer_b_8x32_space": dict(
        fields=dict(scheme="space"),
        frames=8,
        size=224,
        stride=32,
        params=86_106_256,
        gmacs=140.5,
        top1=76.9,
        top5=None,
        source=_ABLATION,
    ),
    "timesformer_b_8x32_local_global": dict(
        fields=dict(scheme="local_global"),
        frames=8,
        size=224,
        stride=32,
        params=None,
        gmacs=None,
        top1=75.9,
        top5=None,
        source=_ABLATION,
    ),
    "timesformer_b_8x32_axial": dict(
        fields=dict(scheme="axial"),
        frames=8,
        size=224,
        stride=32,
        params=None,
        gmacs=None,
        top1=73.5,
        top5=None,
        source=_ABLATION,
    ),
}

for _name, _preset in _PRESETS.items():
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="timesformer",
            module=TimeSformer,
            preset=_preset["fields"],
            tiny=dict(frames=4, size=32, patch=8, width=16, depth=2, heads=2, mlp_width=32),
            input_shape=(_preset["frames"], _preset["size"], _preset["size"], 3),
            tiny_input_shape=(4, 32, 32, 3),
            paper="Is Space-Time Attention All You Need for Video Understanding?",
            year=2021,
            arxiv="2102.05095",
            temporal=f"attention: {' then '.join(SCHEMES[_preset['fields'].get('scheme', 'divided')])}",
            order_aware=_preset["fields"].get("scheme") != "space",
            stride=_preset["stride"],
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("Kinetics-400", _preset["top1"], _preset["top5"], "1x3", _preset["source"]),),
            weights="transformers, facebook/timesformer-base-finetuned-k400" if not _preset["fields"] else "",
            licence="CC-BY-NC-4.0" if not _preset["fields"] else "",
            inflates="vit_b_16",
        )
    )
