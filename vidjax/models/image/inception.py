"""Inception-v1 (GoogLeNet): parallel convolutions of several sizes. For images, and the basis of I3D and S3D.

Paper: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv:1409.4842, Table 1.
Input: images [B, H, W, C]. The auxiliary classifiers of section 5 are omitted.

  inception_v1       as in the paper: biases, local response normalization, a 5x5 branch.
  inception_v1_bn    torchvision's GoogLeNet: BatchNorm, and 3x3 where the paper has 5x5.
  inception_v1_same  what I3D inflates: the same with TensorFlow's padding and BatchNorm without scale.

Every part accepts clips [B, T, H, W, C] and images: windows have as many axes as the input, and time is
halved by the stem and by the pooling from stage 2 on (Carreira & Zisserman, arXiv:1705.07750, section 2.4).
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm, local_response_norm
from vidjax.layers.pool import max_pool
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model

# Table 1, one row per block: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection; 0 omits a branch.
STAGES = (
    ((0, 64, 192, 0, 0, 0),),
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
TINY = dict(
    stem_width=4,
    stages=(((0, 4, 6, 0, 0, 0),), ((4, 3, 4, 2, 3, 3),), ((4, 3, 6, 2, 3, 3),), ((8, 4, 8, 4, 8, 8),)),
)


@dataclasses.dataclass(frozen=True)
class Units:
    """Convolution and pooling units.

    Attributes:
      norm: BatchNorm after each convolution, in place of a bias.
      scale, epsilon, momentum, groups: of BatchNorm.
      separable: each window of more than one frame in two, space before time (S3D).
      padding: "half": window // 2 on each side of a convolution, (window - 1) // 2 in pooling; "ceil": the
        same, but pooling with strides is not padded and rounds its size up; "SAME": TensorFlow's.
    """

    norm: bool
    scale: bool
    epsilon: float
    momentum: float
    groups: int
    separable: bool
    padding: str
    dtype: DTypeLike
    param_dtype: DTypeLike

    def conv(
        self, x: jax.Array, train: bool, features: int, window: int, name: str, stride: int = 1
    ) -> jax.Array:
        """Convolution, BatchNorm and ReLU: submodules `name`_conv and `name`_bn of the module that calls."""
        n = x.ndim - 2
        if self.separable and window > 1:
            x = self._conv(x, train, features, (1, window, window), (1, stride, stride), name)
            return self._conv(x, train, features, (window, 1, 1), (stride, 1, 1), f"{name}_time")
        return self._conv(x, train, features, (window,) * n, (stride,) * n, name)

    def _conv(self, x, train, features, window, strides, name):
        padding = "SAME" if self.padding == "SAME" else [k // 2 for k in window]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = Conv(features, window, strides, padding, not self.norm, name=f"{name}_conv", **types)(x)
        if self.norm:
            x = BatchNorm(
                self.momentum,
                self.epsilon,
                self.scale,
                groups=self.groups,
                param_dtype=self.param_dtype,
                name=f"{name}_bn",
            )(x, train)
        return nn.relu(x)

    def pool(self, x: jax.Array, window: int, stride: int = 2, time: bool = True) -> jax.Array:
        """Max pooling, for clips over time as well with `time`."""
        n = x.ndim - 2
        windows, strides = (window,) * n, (stride,) * n
        if n == 3 and not time:
            windows, strides = (1, window, window), (1, stride, stride)
        if self.padding == "SAME":
            return max_pool(x, windows, strides, "SAME")
        if self.padding == "ceil" and stride > 1:
            return max_pool(x, windows, strides, 0, ceil_mode=True)
        return max_pool(x, windows, strides, [(k - 1) // 2 for k in windows])


class Mixed(nn.Module):
    """Figure 2b: up to four branches, joined in the channels. `widths` is a row of Table 1."""

    widths: tuple[int, ...]
    wide: int
    units: Units

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [B, (T,) H, W, C] to [B, (T,) H, W, C']."""
        one, reduce3, three, reduce5, five, project = self.widths
        conv = self.units.conv
        branches = []
        if one:
            branches.append(conv(x, train, one, 1, "branch0"))
        if three:
            y = conv(x, train, reduce3, 1, "branch1_reduce")
            branches.append(conv(y, train, three, 3, "branch1"))
        if five:
            y = conv(x, train, reduce5, 1, "branch2_reduce")
            branches.append(conv(y, train, five, self.wide, "branch2"))
        if project:
            branches.append(conv(self.units.pool(x, 3, 1), train, project, 1, "branch3"))
        return jnp.concatenate(branches, -1)


class Inception(nn.Module):
    """The layers before the classifier, for images and clips; subclasses pool and classify.

    Attributes:
      num_classes: number of classes K; 0 omits the classifier and returns pooled features.
      stem_width: channels of the first convolution.
      stages: rows of Table 1, by stage.
      wide: window of the branch that the paper gives 5x5.
      last_pool: window of the pooling before the last stage.
      padding, norm, norm_scale, epsilon, momentum: see `Units`.
      lrn: local response normalization after the first pooling and before the second (Figure 3).
      dropout: dropout rate before the classifier.
      bn_groups: number of parts of the batch that BatchNorm normalizes separately in training.
      partial_bn: only the stem's BatchNorm uses batch statistics in training.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    stem_width: int = 64
    stages: tuple[tuple[tuple[int, ...], ...], ...] = STAGES
    wide: int = 3
    last_pool: int = 2
    padding: str = "SAME"
    norm: bool = True
    norm_scale: bool = True
    epsilon: float = 1e-3
    momentum: float = 0.9
    lrn: bool = False
    dropout: float = 0.0
    bn_groups: int = 1
    partial_bn: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    separable = False

    def trunk_features(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps [B, (T,) H, W, C] to the last stage's map and the endpoints stem, stage1-4, each a map."""
        units = Units(
            self.norm,
            self.norm_scale,
            self.epsilon,
            self.momentum,
            self.bn_groups,
            self.separable,
            self.padding,
            self.dtype,
            self.param_dtype,
        )
        normalize = local_response_norm if self.lrn else lambda x: x
        x = units.conv(x, train, self.stem_width, 7, "stem", stride=2)
        x = normalize(units.pool(x, 3, time=False))
        endpoints = {"stem": x}
        train = train and not self.partial_bn
        for i, rows in enumerate(self.stages, 1):
            if i == 2:
                x = units.pool(normalize(x), 3, time=False)
            elif i > 2:
                x = units.pool(x, self.last_pool if i == len(self.stages) else 3)
            for j, widths in enumerate(rows):
                x = Mixed(widths, self.wide, units, name=f"stage{i}_block{j}")(x, train)
            endpoints[f"stage{i}"] = x
        return x, endpoints


class InceptionV1(Inception):
    """Inception-v1 of images: the average over all places, dropout and a linear layer."""

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps images [B, H, W, C] to logits float32 [B, K] and endpoints (stem, stage1-4, pre_logits [B,
        D])."""
        x, endpoints = self.trunk_features(image, train)
        x = endpoints["pre_logits"] = x.astype(jnp.float32).mean((1, 2))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        return x, endpoints


def _register(name: str, preset: dict, mean: tuple[float, ...], std: tuple[float, ...], **published):
    register_model(
        ModelSpec(
            name=name,
            family="inception",
            module=InceptionV1,
            preset=preset,
            tiny=TINY,
            input_shape=(224, 224, 3),
            tiny_input_shape=(32, 32, 3),
            paper="Going Deeper with Convolutions",
            year=2015,
            arxiv="1409.4842",
            temporal="none: an image model",
            order_aware=False,
            num_classes=1000,
            mean=mean,
            std=std,
            **published,
        )
    )


_register(
    "inception_v1",
    dict(wide=5, last_pool=3, padding="ceil", norm=False, lrn=True, dropout=0.4),
    IMAGENET_MEAN,
    IMAGENET_STD,
)
_HALVES = ((0.5,) * 3, (0.5,) * 3)
_register(
    "inception_v1_bn",
    dict(padding="ceil", dropout=0.2),
    *_HALVES,
    params=6_624_904,
    gmacs=1.498,
    results=(Result("ImageNet", 69.778, 89.53, "1x1", "torchvision model zoo"),),
    weights="torchvision.models.googlenet, IMAGENET1K_V1",
    licence="BSD-3-Clause",
)
_register("inception_v1_same", dict(norm_scale=False, momentum=0.999), *_HALVES)
