"""Masked autoencoders of video: a ViT encoder on the visible tokens and a small decoder for the masked ones.

Papers: Tong et al., "VideoMAE", NeurIPS 2022, arXiv:2203.12602, section 3 and table 7; Wang et al., "VideoMAE
V2", CVPR 2023, arXiv:2303.16727, section 3.2 (dual masking); Feichtenhofer et al., "Masked Autoencoders As
Spatiotemporal Learners" (MAE-ST), NeurIPS 2022, arXiv:2205.09113, section 3. Input: 16 frames of 224x224.

The encoder processes visible tokens only, so its cost is proportional to their number.
`vidjax.tasks.masked_autoencoding.draw` draws the visible tokens and those to decode, which are passed to the
call; without them (when describing a model) the model draws a mask from a fixed key. The encoder's parameters
have the names of `vidjax.models.masked.videomae` and `vidjax.models.masked.mae_st`; for fine-tuning, list the
parameters that the two do not share in `init.skip`.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.masks import draw_mask
from vidjax.layers.norm import LayerNorm
from vidjax.layers.transformer import (
    KERNEL_INIT,
    RULES,
    XAVIER,
    Block,
    PatchEmbed,
    TokenGrid,
    apply_blocks,
    sincos_positions,
)
from vidjax.models.masked import videomae
from vidjax.models.masked.mae_st import add_positions, check_clip
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, register_model

Output = tuple[jax.Array, dict[str, jax.Array]]


class MaskedAutoencoder(nn.Module):
    """Base of both families: fields, encoder blocks on visible tokens, decoder blocks.

    Attributes:
      num_classes: ignored; present because every registered model takes it.
      width, depth, heads, mlp_width: of the encoder.
      decoder_width, decoder_depth, decoder_heads: of the decoder, whose MLPs are four times as wide.
      patch: frames, height and width of a tubelet.
      mask, mask_ratio: kind and ratio of the mask, see `vidjax.layers.masks`.
      decoder_mask, decoder_mask_ratio: mask of the tokens to decode (dual masking); "" for none.
      epsilon, decoder_epsilon: epsilon of all LayerNorms, and of the one after the decoder.
      scan, remat, backend: see `vidjax.layers.transformer` and `vidjax.layers.attention`.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    patch: Sequence[int] = (2, 16, 16)
    mask: str = "tube"
    mask_ratio: float = 0.9
    decoder_mask: str = ""
    decoder_mask_ratio: float = 0.5
    epsilon: float = 1e-6
    decoder_epsilon: float = 1e-6
    scan: bool = False
    remat: str = "none"
    backend: str = "auto"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    pretraining = True  # it has no logits; `encode` returns the endpoints of whole clips

    def token_grid(self, input_shape: Sequence[int]) -> TokenGrid:
        """Returns the layout of the tokens of a clip (T, H, W, C)."""
        return TokenGrid(tuple(size // p for size, p in zip(input_shape, self.patch)))

    def encode(self, video: jax.Array) -> dict[str, jax.Array]:
        """Returns the endpoints of unmasked clips [B, T, H, W, C]."""
        n = self.token_grid(video.shape[1:]).count
        every = jnp.broadcast_to(jnp.arange(n)[None], (len(video), n))
        return self(video, False, every, every[:, :1])[1]

    def _drawn(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the visible tokens and those to decode, drawn from a fixed key."""
        grid, key = self.token_grid(video.shape[1:]).shape, jax.random.PRNGKey(0)
        mask = draw_mask(self.mask, key, video.shape[0], grid, self.mask_ratio)
        if not self.decoder_mask:
            return mask.visible, mask.masked
        kept = draw_mask(self.decoder_mask, key, video.shape[0], grid, self.decoder_mask_ratio)
        return mask.visible, kept.visible

    def _blocks(self, x: jax.Array, depth: int, heads: int, mlp: int, train: bool, bias: str, name: str):
        block = functools.partial(
            Block,
            heads,
            mlp,
            qkv_bias=bias,
            epsilon=self.epsilon,
            backend=self.backend,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=XAVIER,
        )
        return apply_blocks(block, x, depth, train, scan=self.scan, remat=self.remat, name=name)[0]

    def _parts(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        dense = functools.partial(nn.Dense, kernel_init=XAVIER, **types)
        return dense, functools.partial(LayerNorm, **types), types


class VideoMAEPretraining(MaskedAutoencoder):
    """VideoMAE and VideoMAE V2: fixed sine-cosine positions, no class token; tubelets are predicted whole.

    Attributes:
      encoder_norm: a LayerNorm between encoder and decoder. The authors' models and published weights have
        one; transformers' default configuration, whose parameters are counted as the reference, has none.
    """

    encoder_norm: bool = False
    predicts_one_frame = False

    @nn.compact
    def __call__(
        self,
        video: jax.Array,
        train: bool = False,
        visible: jax.Array | None = None,
        decoded: jax.Array | None = None,
    ) -> Output:
        """Predicts masked tubelets from visible ones.

        Args:
          video: [B, T, H, W, C].
          train: ignored.
          visible, decoded: token indices int32 [B, Nv] and [B, Nd], time first; drawn from a fixed key if
            None.

        Returns:
          Predictions float32 [B, Nd, p_t p_h p_w C], and endpoints: tokens [B, Nv, D] of the encoder and
          pre_logits [B, D], their mean.
        """
        if visible is None:
            visible, decoded = self._drawn(video)
        dense, norm, types = self._parts()
        positions = sincos_positions(self.token_grid(video.shape[1:]).count, self.width)
        x = PatchEmbed(self.width, self.patch, name="patch_embed", **types)(video, visible)
        x += jnp.asarray(positions, x.dtype)[visible]
        x = self._blocks(x, self.depth, self.heads, self.mlp_width, train, "qv", "block")
        if self.encoder_norm:
            x = norm(self.epsilon, name="norm")(x)
        tokens = x

        d = self.decoder_width
        x = dense(d, use_bias=False, name="decoder_embed")(x)
        positions = jnp.asarray(sincos_positions(len(positions), d), x.dtype)
        mask_token = self.param("mask_token", KERNEL_INIT, (1, 1, d), self.param_dtype).astype(x.dtype)
        x = jnp.concatenate([x + positions[visible], mask_token + positions[decoded]], axis=1)
        x = self._blocks(x, self.decoder_depth, self.decoder_heads, 4 * d, train, "qv", "decoder_block")
        x = norm(self.decoder_epsilon, name="decoder_norm")(x[:, visible.shape[1] :])
        x = dense(_volume(self.patch) * video.shape[-1], name="decoder_pred")(x)
        pooled = tokens.astype(jnp.float32).mean(1)
        return x.astype(jnp.float32), {"tokens": tokens, "pre_logits": pooled}


class MAESTPretraining(MaskedAutoencoder):
    """MAE-ST: learned positions of space and of time, a class token, all tokens in the decoder; one
    frame of every tubelet is predicted.

    Attributes:
      frames, size: frames and size of the clips that the position tables are for.
    """

    mask: str = "random"
    frames: int = 16
    size: int = 224
    predicts_one_frame = True

    @nn.compact
    def __call__(
        self,
        video: jax.Array,
        train: bool = False,
        visible: jax.Array | None = None,
        decoded: jax.Array | None = None,
    ) -> Output:
        """As `VideoMAEPretraining`, but predictions are [B, Nd, p_h p_w C], and tokens have the class token
        first. Raises ValueError as `check_clip`."""
        check_clip(self, video.shape[1:4])
        if visible is None:
            visible, decoded = self._drawn(video)
        dense, norm, types = self._parts()
        n = self.token_grid(video.shape[1:]).count
        x = PatchEmbed(self.width, self.patch, name="patch_embed", **types)(video, visible)
        x = add_positions(self, x, visible)
        x = self._blocks(x, self.depth, self.heads, self.mlp_width, train, "qkv", "block")
        x = tokens = norm(self.epsilon, name="norm")(x)

        d = self.decoder_width
        x = dense(d, name="decoder_embed")(x)
        mask_token = self.param("mask_token", KERNEL_INIT, (1, 1, d), self.param_dtype).astype(x.dtype)
        rows = jnp.arange(x.shape[0]).reshape(-1, 1)
        everything = jnp.broadcast_to(mask_token, (x.shape[0], n, d)).at[rows, visible].set(x[:, 1:])
        everywhere = jnp.broadcast_to(jnp.arange(n)[None], (x.shape[0], n))
        x = add_positions(self, everything, everywhere, "decoder_", cls=x[:, :1])
        x = self._blocks(x, self.decoder_depth, self.decoder_heads, 4 * d, train, "qkv", "decoder_block")
        x = jnp.take_along_axis(x[:, 1:], decoded[..., None], axis=1)
        x = norm(self.decoder_epsilon, name="decoder_norm")(x)
        x = dense(_volume(self.patch[1:]) * video.shape[-1], name="decoder_pred")(x)
        pooled = tokens[:, 1:].astype(jnp.float32).mean(1)
        return x.astype(jnp.float32), {"tokens": tokens, "pre_logits": pooled}


def _volume(sizes: Sequence[int]) -> int:
    return functools.reduce(lambda a, b: a * b, sizes)


_VIDEOMAE = dict(
    paper="VideoMAE: Masked Autoencoders are Data-Efficient Learners",
    year=2022,
    arxiv="2203.12602",
    weights="videomae, transformers",
    licence="CC-BY-NC-4.0",
)
_V2 = dict(
    paper="VideoMAE V2: Scaling Video Masked Autoencoders",
    year=2023,
    arxiv="2303.16727",
    weights="videomae",
    licence="MIT",
)
_ST = dict(paper="Masked Autoencoders As Spatiotemporal Learners", year=2022, arxiv="2205.09113")
_DUAL = dict(decoder_mask="running_cell")
# Class, encoder (a preset of `vidjax.models.masked.videomae`), decoder and other fields; parameters; paper.
_PRESETS = {
    "videomae_s_pretrain": dict(
        module=VideoMAEPretraining,
        encoder="s",
        decoder_width=192,
        decoder_depth=4,
        decoder_heads=3,
        fields={},
        params=24_028_608,
        paper=_VIDEOMAE,
    ),
    "videomae_b_pretrain": dict(
        module=VideoMAEPretraining,
        encoder="b",
        decoder_width=384,
        decoder_depth=4,
        decoder_heads=6,
        fields={},
        params=94_209_408,
        paper=_VIDEOMAE,
    ),
    "videomae_l_pretrain": dict(
        module=VideoMAEPretraining,
        encoder="l",
        decoder_width=512,
        decoder_depth=4,
        decoder_heads=8,
        fields={},
        params=317_779_968,
        paper=_VIDEOMAE,
    ),
    "videomae_h_pretrain": dict(
        module=VideoMAEPretraining,
        encoder="h",
        decoder_width=640,
        decoder_depth=12,
        decoder_heads=8,
        fields={},
        params=692_484_736,
        paper=_VIDEOMAE,
    ),
    "videomae_v2_b_pretrain": dict(
        module=VideoMAEPretraining,
        encoder="b",
        decoder_width=384,
        decoder_depth=4,
        decoder_heads=6,
        fields=_DUAL,
        params=94_209_408,
        paper=_V2,
    ),
    "videomae_v2_g_pretrain": dict(
        module=VideoMAEPretraining,
        encoder="v2_g",
        decoder_width=512,
        decoder_depth=4,
        decoder_heads=8,
        fields=_DUAL,
        params=1_025_541_144,
        paper=_V2,
    ),
    "mae_st_b_pretrain": dict(
        module=MAESTPretraining,
        encoder="b",
        decoder_width=512,
        decoder_depth=4,
        decoder_heads=16,
        fields={},
        params=None,
        paper=_ST,
    ),
    "mae_st_l_pretrain": dict(
        module=MAESTPretraining,
        encoder="l",
        decoder_width=512,
        decoder_depth=4,
        decoder_heads=16,
        fields={},
        params=None,
        paper=_ST,
    ),
    "mae_st_h_pretrain": dict(
        module=MAESTPretraining,
        encoder="h",
        decoder_width=512,
        decoder_depth=4,
        decoder_heads=16,
        fields={},
        params=None,
        paper=_ST,
    ),
}

for _name, _preset in _PRESETS.items():
    _encoder = videomae.encoder_fields(f"videomae_{_preset['encoder']}")
    _decoder = {k: _preset[k] for k in ("decoder_width", "decoder_depth", "decoder_heads")}
    _tiny = dict(width=16, depth=2, heads=2, mlp_width=32, patch=(2, 8, 8))
    _tiny |= dict(decoder_width=12, decoder_depth=1, decoder_heads=2, mask_ratio=0.75)
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="mae",
            module=_preset["module"],
            preset=dict(**_encoder, **_decoder, **_preset["fields"]),
            tiny=_tiny | (dict(frames=8, size=32) if _preset["module"] is MAESTPretraining else {}),
            input_shape=(16, 224, 224, 3),
            tiny_input_shape=(4, 32, 32, 3),
            temporal="joint space-time attention over visible tokens",
            order_aware=True,
            num_classes=0,
            task="pretrain",
            stride=4,
            fps=30,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            params=_preset["params"],
            **_preset["paper"],
        )
    )
