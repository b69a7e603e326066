"""CNN-M-2048, the image network of the first two-stream networks.

Paper: Chatfield et al., "Return of the Devil in the Details: Delving Deep into Convolutional Nets", BMVC
2014, arXiv:1405.3531, table 1: CNN-M, with a second hidden layer of 2048.
Input: images [B, H, W, C], 224x224: the first hidden layer is as large as the 6x6 map of that size.
As the authors released it, windows of pooling are 3x3 with stride 2, the last one extending past the edge
if necessary, and local response normalization is over 5 channels with k = 2, alpha = 5e-4 and beta = 0.75.
Deviation: He initialization (arXiv:1502.01852) in place of a fixed standard deviation of 0.01, with which
activations vanish over the layers.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import local_response_norm
from vidjax.layers.pool import max_pool
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, register_model

HE = nn.initializers.he_normal()


class CNNM(nn.Module):
    """CNN-M.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the second hidden layer.
      widths: channels of the five convolutions.
      hidden: widths of the two hidden layers.
      norms: number of the first two convolutions followed by local response normalization: 2, or 1 in the
        temporal stream of a two-stream network (Simonyan & Zisserman, arXiv:1406.2199, figure 1).
      dropout: dropout rate before the second hidden layer and before the classifier.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    widths: tuple[int, int, int, int, int] = (96, 256, 512, 512, 512)
    hidden: tuple[int, int] = (4096, 2048)
    norms: int = 2
    dropout: float = 0.5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images [B, H, W, C] to logits float32 [B, K] and endpoints (stem, stage1-4, pre_logits [B,
        D])."""
        types = dict(kernel_init=HE, dtype=self.dtype, param_dtype=self.param_dtype)
        conv = partial(Conv, use_bias=True, **types)
        dense = partial(nn.Dense, **types)
        normed = partial(local_response_norm, size=5, alpha=5e-4, beta=0.75, k=2.0)
        pool = partial(max_pool, window=3, strides=2, ceil_mode=True)
        dropped = nn.Dropout(self.dropout, deterministic=not train)

        w = self.widths
        x = nn.relu(conv(w[0], (7, 7), strides=2, name="stem_conv")(image))
        x = stem = pool(normed(x) if self.norms > 0 else x)
        x = nn.relu(conv(w[1], (5, 5), strides=2, padding=1, name="conv2")(x))
        x = stage1 = pool(normed(x) if self.norms > 1 else x)
        x = stage2 = nn.relu(conv(w[2], (3, 3), padding=1, name="conv3")(x))
        x = stage3 = nn.relu(conv(w[3], (3, 3), padding=1, name="conv4")(x))
        x = stage4 = pool(nn.relu(conv(w[4], (3, 3), padding=1, name="conv5")(x)))
        x = nn.relu(dense(self.hidden[0], name="fc6")(x.reshape(x.shape[0], -1)))
        x = nn.relu(dense(self.hidden[1], name="fc7")(dropped(x))).astype(jnp.float32)
        endpoints = dict(stem=stem, stage1=stage1, stage2=stage2, stage3=stage3, stage4=stage4, pre_logits=x)
        if self.num_classes:
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(dropped(x))
        return x, endpoints


register_model(
    ModelSpec(
        name="cnn_m_2048",
        family="cnn_m",
        module=CNNM,
        preset={},
        tiny=dict(widths=(8, 8, 8, 8, 8), hidden=(16, 16), dropout=0.0),
        input_shape=(224, 224, 3),
        tiny_input_shape=(64, 64, 3),
        paper="Return of the Devil in the Details: Delving Deep into Convolutional Nets",
        year=2014,
        arxiv="1405.3531",
        temporal="none: an image model",
        order_aware=False,
        num_classes=1000,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
)
