"""C3D: 3x3x3 convolutions throughout, and two hidden layers.

Paper: Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015,
arXiv:1412.0767, Figure 3. Input: 16 frames, 112x112. The first hidden layer, `fc6`, is the paper's feature
of a clip (section 3.3, where it is L2-normalized).

The first pooling is spatial only. The last one is padded in space, which makes the 7x7 map 4x4 and the input
of
the first hidden layer 8192 long, as published: by a row and a column on each side as in PyTorch ports, or
with `last_pool="ceil"` at the end only, as the authors' Caffe rounds up.
Deviation: clips of other sizes are pooled to the map that the first hidden layer requires.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.errors import unknown
from vidjax.layers.conv import Conv
from vidjax.layers.pool import adaptive_avg_pool, max_pool
from vidjax.registry import ModelSpec, Result, register_model

LAST_POOLS = ("padded", "ceil")


class C3D(nn.Module):
    """C3D for clips.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the second hidden layer.
      convs: convolutions in each stage.
      widths: their channels.
      hidden: width of the two hidden layers.
      map_size: frames, height and width of the input map of the first hidden layer.
      last_pool: "padded" or "ceil", see above.
      dropout: dropout rate before the second hidden layer and before the classifier.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    convs: tuple[int, ...] = (1, 1, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    map_size: tuple[int, int, int] = (1, 4, 4)
    last_pool: str = "padded"
    dropout: float = 0.5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints: stage1-5, the maps before
        pooling (stem is stage1); fc6 and fc7 [B, D]; pre_logits, the same as fc7."""
        if self.last_pool not in LAST_POOLS:
            raise unknown("last pooling of C3D", self.last_pool, LAST_POOLS)
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x, endpoints = video, {}
        for i, (convs, width) in enumerate(zip(self.convs, self.widths, strict=True), 1):
            for j in range(convs):
                name = f"stage{i}_conv{j}" if i > 1 or j > 0 else "stem_conv"
                x = nn.relu(Conv(width, (3, 3, 3), 1, 1, use_bias=True, name=name, **types)(x))
                endpoints.setdefault("stem", x)
            endpoints[f"stage{i}"] = x
            time = 1 if i == 1 else min(2, x.shape[1])  # a short clip can have one frame left
            padded = i == len(self.convs) and self.last_pool == "padded"
            ceil = i == len(self.convs) and not padded
            x = max_pool(x, (time, 2, 2), (time, 2, 2), (0, 1, 1) if padded else 0, ceil)
        x = adaptive_avg_pool(x, self.map_size).reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = endpoints[name] = nn.relu(nn.Dense(self.hidden, name=name, **types)(x))
            if name == "fc6" or self.num_classes:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        endpoints["pre_logits"] = endpoints["fc7"]
        if self.num_classes:
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x.astype(jnp.float32))
        return x, endpoints


register_model(
    ModelSpec(
        name="c3d",
        family="c3d",
        module=C3D,
        preset={},
        tiny=dict(convs=(1, 1, 2), widths=(4, 6, 8), hidden=16, map_size=(2, 2, 2), dropout=0.0),
        input_shape=(16, 112, 112, 3),
        tiny_input_shape=(8, 32, 32, 3),
        paper="Learning Spatiotemporal Features with 3D Convolutional Networks",
        year=2015,
        arxiv="1412.0767",
        temporal="3D convolutions",
        order_aware=True,
        params=79_634_576,
        gmacs=38.549,
        results=(
            Result("Sports-1M", 61.1, 85.2, "10x1", "arXiv:1412.0767, table 2, video hit@k, from I380K"),
        ),
    )
)
