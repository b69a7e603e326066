"""Base of models on an image backbone: the backbone, created from the registry, and the classifier."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jax.typing import DTypeLike

from vidjax.errors import UserError
from vidjax.registry import create_model, fields, spec

Output = tuple[jax.Array, dict[str, jax.Array]]


class FrameModel(nn.Module):
    """Base of models on an image backbone.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the fused features.
      trunk: registered name of the image model.
      trunk_options: fields of the image model, and `tiny`.
      partial_bn: only the trunk's first BatchNorm uses batch statistics in training (Wang et
        al., arXiv:1608.00859, section 3.2).
      frozen: freeze the backbone: no gradient, and BatchNorm in inference mode.
      dropout: dropout rate before the classifier.
      bn_groups, dtype, param_dtype: see `ResNet`.
    """

    num_classes: int
    trunk: str = "resnet50"
    trunk_options: Mapping[str, Any] = FrozenDict()
    partial_bn: bool = False
    frozen: bool = False
    dropout: float = 0.0
    bn_groups: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def image_features(self, image: jax.Array, train: bool, **inputs: Any) -> Output:
        """Returns pooled features [B, D] of images [B, H, W, C], and the backbone's endpoints; `inputs` are
        further arguments of its call."""
        shared = dict(
            bn_groups=self.bn_groups,
            partial_bn=self.partial_bn,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        known = fields(spec(self.trunk).module)  # a backbone without BatchNorm has no bn_groups
        if self.partial_bn and "partial_bn" not in known:
            raise UserError(f"partial_bn requires BatchNorm, which {self.trunk} does not have; remove it")
        options = {k: v for k, v in shared.items() if k in known} | dict(self.trunk_options)
        trunk = create_model(self.trunk, num_classes=0, **options).copy(name="trunk")
        output = trunk(image, train and not self.frozen, **inputs)
        return jax.lax.stop_gradient(output) if self.frozen else output

    def classify(self, x: jax.Array, endpoints: dict[str, jax.Array], train: bool) -> Output:
        """Applies dropout and the linear classifier to features [B, D]."""
        endpoints["pre_logits"] = x
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints
