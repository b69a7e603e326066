"""VGG: stages of 3x3 convolutions and two hidden layers.

Paper: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
arXiv:1409.1556, Table 1, column D (16 layers). Input: images [B, H, W, C], 224x224 in the paper; as in
torchvision, other sizes are averaged to the 7x7 map that the first hidden layer takes.
`vgg16_bn` has BatchNorm after each convolution, as torchvision's.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.layers.pool import adaptive_avg_pool, max_pool
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model


class VGG(nn.Module):
    """VGG for images.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns the second hidden layer.
      convs: convolutions in each stage.
      widths: their channels.
      hidden: width of the two hidden layers.
      map_size: height and width of the map that the first hidden layer takes.
      norm: BatchNorm after each convolution.
      dropout: dropout rate before the second hidden layer and before the classifier.
      bn_groups: number of parts of the batch that BatchNorm normalizes separately in training.
      partial_bn: only the first BatchNorm uses batch statistics in training.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    convs: tuple[int, ...] = (2, 2, 3, 3, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    hidden: int = 4096
    map_size: int = 7
    norm: bool = False
    dropout: float = 0.5
    bn_groups: int = 1
    partial_bn: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images [B, H, W, C] to logits float32 [B, K] and endpoints: stem, the first convolution;
        stage1-5, the maps before pooling, and pool1-5, after; fc6 and fc7 [B, D]; pre_logits, the same as
        fc7."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        endpoints = {}
        x = image
        for i, (convs, width) in enumerate(zip(self.convs, self.widths, strict=True), 1):
            for j in range(convs):
                name = f"stage{i}_{{}}{j}" if i > 1 or j > 0 else "stem_{}"
                x = Conv(width, (3, 3), 1, 1, use_bias=True, name=name.format("conv"), **types)(x)
                if self.norm:
                    in_training = train and not (self.partial_bn and "stem" in endpoints)
                    norm = BatchNorm(
                        groups=self.bn_groups, param_dtype=self.param_dtype, name=name.format("bn")
                    )
                    x = norm(x, in_training)
                x = nn.relu(x)
                endpoints.setdefault("stem", x)
            endpoints[f"stage{i}"] = x
            x = endpoints[f"pool{i}"] = max_pool(x, 2, 2)
        x = adaptive_avg_pool(x, self.map_size).reshape(x.shape[0], -1)
        for name in ("fc6", "fc7"):
            x = endpoints[name] = nn.relu(nn.Dense(self.hidden, name=name, **types)(x))
            if name == "fc6" or self.num_classes:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        endpoints["pre_logits"] = endpoints["fc7"]
        if self.num_classes:
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x.astype(jnp.float32))
        return x, endpoints


def _register(name: str, preset: dict, params: int, top1: float, top5: float):
    register_model(
        ModelSpec(
            name=name,
            family="vgg",
            module=VGG,
            preset=preset,
            tiny=dict(convs=(1, 1, 1, 1, 2), widths=(4, 4, 6, 6, 8), hidden=12, map_size=1, dropout=0.0),
            input_shape=(224, 224, 3),
            tiny_input_shape=(32, 32, 3),
            paper="Very Deep Convolutional Networks for Large-Scale Image Recognition",
            year=2015,
            arxiv="1409.1556",
            temporal="none: an image model",
            order_aware=False,
            num_classes=1000,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            params=params,
            gmacs=15.47,
            results=(Result("ImageNet", top1, top5, "1x1", "torchvision model zoo"),),
            weights=f"torchvision.models.{name}, IMAGENET1K_V1",
            licence="BSD-3-Clause",
        )
    )


_register("vgg16", {}, params=138_357_544, top1=71.592, top5=90.382)
_register("vgg16_bn", dict(norm=True), params=138_365_992, top1=73.36, top5=91.516)
