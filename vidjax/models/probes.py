"""Classifiers of a frozen model's features, cached by `vidjax features`.

Papers: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv:2111.06377, appendix
A.1 (a linear classifier, behind a BatchNorm without parameters); Bardes et al., "Revisiting Feature
Prediction for Learning Visual Representations from Video" (V-JEPA), TMLR 2024, arXiv:2404.08471, section 4.1
(a learned query attends to all tokens). Input: tokens [B, N, D]; of pooled features N is `data.frames`.
Deviation: the class weights start with a deviation of 0.01 in both, as MAE's do.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.errors import UserError
from vidjax.layers.attention import attention
from vidjax.layers.norm import BatchNorm, LayerNorm
from vidjax.layers.transformer import KERNEL_INIT, RULES, Mlp
from vidjax.registry import ModelSpec, register_model

Output = tuple[jax.Array, dict[str, jax.Array]]


def _head(num_classes: int, x: jax.Array, param_dtype: DTypeLike) -> jax.Array:
    init = nn.initializers.truncated_normal(0.01)
    return nn.Dense(num_classes, kernel_init=init, param_dtype=param_dtype, name="head")(x)


class LinearProbe(nn.Module):
    """A linear classifier of the mean of the tokens.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier.
      batch_norm: normalize each feature first by BatchNorm without learned parameters.
      dtype: ignored; the computation is float32.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    batch_norm: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool = False) -> Output:
        """Maps tokens [B, N, D] to logits float32 [B, K] and endpoints (pre_logits [B, D])."""
        x = tokens.astype(jnp.float32).mean(1)
        if self.batch_norm:
            x = BatchNorm(epsilon=1e-6, use_scale=False, use_bias=False, name="bn")(x, train)
        endpoints = {"pre_logits": x}
        return (_head(self.num_classes, x, self.param_dtype) if self.num_classes else x), endpoints


class AttentiveProbe(nn.Module):
    """One block of cross-attention from a learned query to the tokens, and a linear classifier.

    The tokens are normalized, the query is not; the attention output is added to the query and followed by a
    pre-norm residual MLP.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier.
      heads: H; the papers' have as many as the encoder.
      mlp_ratio: hidden width of the MLP over D.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    heads: int = 16
    mlp_ratio: int = 4
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool = False) -> Output:
        """Maps tokens [B, N, D] to logits float32 [B, K] and endpoints (pre_logits [B, D]).

        Raises:
          UserError: there is a single token, or the heads do not divide the width.
        """
        b, n, d = tokens.shape
        if n == 1:
            raise UserError(
                "an attentive probe needs several tokens per clip, not pooled features: cache "
                "them with --dense, or use a linear probe"
            )
        if d % self.heads:
            raise UserError(
                f"{self.heads} heads do not divide features of width {d}: set model.options.heads"
            )
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        dense = lambda width, name: nn.Dense(width, kernel_init=KERNEL_INIT, name=name, **types)  # noqa: E731
        query = self.param("query", KERNEL_INIT, (1, 1, d), self.param_dtype).astype(self.dtype)
        x = LayerNorm(name="norm1", **types)(tokens)
        k, v = jnp.split(dense(2 * d, "kv")(x).reshape(b, n, 2 * self.heads, -1), 2, axis=2)
        q = jnp.broadcast_to(dense(d, "q")(query).reshape(1, 1, self.heads, -1), (b, 1, *k.shape[2:]))
        y = query + dense(d, "proj")(attention(q, k, v).reshape(b, 1, d))
        mlp = Mlp(self.mlp_ratio * d, name="mlp", **types)
        x = (y + mlp(LayerNorm(name="norm2", **types)(y), train))[:, 0].astype(jnp.float32)
        endpoints = {"pre_logits": x}
        return (_head(self.num_classes, x, self.param_dtype) if self.num_classes else x), endpoints


_PROBES = {
    "linear_probe": dict(
        module=LinearProbe,
        input_shape=(1, 1024),
        tiny_input_shape=(1, 16),
        temporal="none: the mean of cached features",
        tiny={},
        paper=dict(paper="Masked Autoencoders Are Scalable Vision Learners", year=2022, arxiv="2111.06377"),
    ),
    "attentive_probe": dict(
        module=AttentiveProbe,
        input_shape=(1568, 1024),
        tiny_input_shape=(8, 16),
        temporal="a learned query attends to cached features",
        tiny=dict(heads=2, mlp_ratio=2),
        paper=dict(
            paper="Revisiting Feature Prediction for Learning Visual Representations from Video",
            year=2024,
            arxiv="2404.08471",
        ),
    ),
}

for _name, _preset in _PROBES.items():
    register_model(
        ModelSpec(
            rules=RULES,
            name=_name,
            family="probes",
            module=_preset["module"],
            preset={},
            tiny=_preset["tiny"],
            input_shape=_preset["input_shape"],
            tiny_input_shape=_preset["tiny_input_shape"],
            temporal=_preset["temporal"],
            order_aware=False,
            task="probe",
            **_preset["paper"],
        )
    )
