"""Residual networks of 3D convolutions: R3D, MC3, and the inflated ResNets C2D and I3D; the backbone of
other models.

R3D and MC3 ("mixed convolutions"): "A Closer Look at Spatiotemporal Convolutions for Action Recognition",
Tran et al., CVPR 2018, arXiv:1711.11248. Table 1, in the 18-layer form of torchvision: no pooling after the
stem. Input 16x112x112. R3D convolves in space and time everywhere, MC3 in the stem and the first stage only.

C2D and I3D of ResNet-50: "Non-local Neural Networks", Wang et al., CVPR 2018, arXiv:1711.07971, table 1 and
section 4, as published by pytorchvideo. Input 8x224x224. C2D models time by a maximum over pairs of frames
and the average at the end; I3D also in kernels of five frames in the stem and three in every second block.
The stride of a bottleneck sits on its 3x3 convolution, so that both inflate from a ResNet-50 of images.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vidjax.layers.conv import Conv
from vidjax.layers.non_local import NonLocal
from vidjax.layers.norm import BatchNorm
from vidjax.layers.pool import max_pool
from vidjax.registry import ModelSpec, Result, register_model

Steps = tuple[int, int, int]  # along (T, H, W)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al., arXiv:1512.03385, figure 5 left), inflated in time.

    Attributes:
      features: inner channels; the block outputs `expansion` times as many.
      conv, norm: constructors of convolutions and norms.
      temporal_kernel: temporal extent of the convolutions, odd.
      strides: strides of the block along T, H and W.
      dilation: spatial dilation of a bottleneck's 3x3 convolution.
      zero_init: initialize the scale of the last norm to zero, so that the block is its shortcut
        (arXiv:1706.02677).
    """

    features: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    temporal_kernel: int = 3
    strides: Steps = (1, 1, 1)
    dilation: int = 1
    zero_init: bool = False

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `x` [B, T, H, W, C] to [B, T', H', W', features * expansion]."""
        y = self.branch(x, train)
        if self.strides != (1, 1, 1) or x.shape[-1] != y.shape[-1]:
            x = self.conv(y.shape[-1], (1, 1, 1), self.strides, name="down_conv")(x)
            x = self.norm(name="down_bn")(x, train)
        return nn.relu(x + y)

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the residual branch."""
        y = self.window("conv1", x, x.shape[-1], self.strides, train)
        y = nn.relu(self.norm(name="bn1")(y, train))
        return self.last_norm("bn2")(self.window("conv2", y, x.shape[-1], (1, 1, 1), train), train)

    def window(self, name: str, x: jax.Array, entering: int, strides: Steps, train: bool) -> jax.Array:
        """Applies the spatiotemporal convolution of a block with `entering` input channels."""
        k = self.temporal_kernel
        return self.conv(self.features, (k, 3, 3), strides, (k // 2, 1, 1), name=name)(x)

    def last_norm(self, name: str) -> nn.Module:
        return self.norm(scale_init=nn.initializers.constant(0.0 if self.zero_init else 1.0), name=name)


class Bottleneck(BasicBlock):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (ibid., right); the first one is inflated in time."""

    expansion = 4

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        t, h, w = self.strides
        k = self.temporal_kernel
        y = self.conv(self.features, (k, 1, 1), (t, 1, 1), (k // 2, 0, 0), name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.window("conv2", y, x.shape[-1], (1, h, w), train)
        y = nn.relu(self.norm(name="bn2")(y, train))
        y = self.conv(self.features * self.expansion, (1, 1, 1), name="conv3")(y)
        return self.last_norm("bn3")(y, train)

    def window(self, name: str, x: jax.Array, entering: int, strides: Steps, train: bool) -> jax.Array:
        d = self.dilation
        window = self.conv(self.features, (1, 3, 3), strides, (0, d, d), kernel_dilation=(1, d, d), name=name)
        return window(x)


def run_stem(
    x: jax.Array,
    train: bool,
    width: int,
    frames: int,
    pool: bool,
    conv: Callable,
    norm: Callable,
    to: str = "",
) -> jax.Array:
    """Applies the first convolution, its norm and, if `pool`, 3x3 max pooling; `to` prefixes the names."""
    x = conv(width, (frames, 7, 7), (1, 2, 2), (frames // 2, 3, 3), name=f"{to}stem_conv")(x)
    x = nn.relu(norm(name=f"{to}stem_bn")(x, train))
    return max_pool(x, (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1))) if pool else x


def run_stage(
    x: jax.Array,
    train: bool,
    name: str,
    block: Callable[..., nn.Module],
    blocks: int,
    temporal_kernels: int | tuple[int, ...],
    strides: Steps,
    non_local: tuple[int, ...] = (),
    attend: Callable[..., nn.Module] | None = None,
) -> jax.Array:
    """Applies blocks NAME_block0, NAME_block1, ...; the first one has the strides.

    Args:
      x: [B, T, H, W, C].
      block: constructor of a block, given temporal_kernel, strides and name.
      blocks: number of blocks.
      temporal_kernels: temporal kernel size of the blocks; a tuple is cycled over the blocks.
      non_local: indices of blocks that a non-local block NAME_nonlocalJ follows.
      attend: constructor of the non-local blocks.
    """
    kernels = (temporal_kernels,) if isinstance(temporal_kernels, int) else temporal_kernels
    for j in range(blocks):
        x = block(
            temporal_kernel=kernels[j % len(kernels)],
            strides=strides if j == 0 else (1, 1, 1),
            name=f"{name}_block{j}",
        )(x, train)
        if j in non_local:
            x = attend(name=f"{name}_nonlocal{j}")(x, train)
    return x


class ResNet3D(nn.Module):
    """A stem, four stages of residual blocks, global average pooling and a linear layer.

    Attributes:
      num_classes: number of classes K; 0 omits the last layer and returns the pooled features.
      stage_sizes: blocks per stage.
      bottleneck: use bottleneck blocks instead of basic ones.
      width: inner channels of the first stage's blocks; doubles with each stage.
      stem_frames: temporal extent of the first convolution.
      stem_pool: whether 3x3 max pooling with stride 2 follows it.
      temporal_kernels: temporal kernel size per stage; a tuple for a stage is cycled over its blocks.
      temporal_strides, spatial_strides: strides of each stage's first block.
      stage1_pool: frames per window of the temporal max pooling after the first stage.
      non_local: per stage, the blocks that a non-local block follows.
      non_local_form: see `NonLocal`.
      zero_init: initialize every residual branch to zero.
      dropout: dropout rate before the last layer.
      bn_groups: number of parts of the batch normalized separately, see `BatchNorm`.
      bn_epsilon: added to variances.
    """

    num_classes: int
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: int = 64
    stem_frames: int = 3
    stem_pool: bool = False
    temporal_kernels: tuple[int | tuple[int, ...], ...] = (3, 3, 3, 3)
    temporal_strides: tuple[int, ...] = (1, 2, 2, 2)
    spatial_strides: tuple[int, ...] = (1, 2, 2, 2)
    stage1_pool: int = 1
    non_local: tuple[tuple[int, ...], ...] = ((), (), (), ())
    non_local_form: str = "embedded_gaussian"
    zero_init: bool = False
    dropout: float = 0.0
    bn_groups: int = 1
    bn_epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classifies `video` [B, T, H, W, C]; logits [B, K] and the endpoints stem, stage1.., pre_logits."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = partial(Conv, **types)
        norm = partial(BatchNorm, groups=self.bn_groups, epsilon=self.bn_epsilon, **types)
        form = dict(form=self.non_local_form, zero_init=self.zero_init)
        block = partial(self.block(), conv=conv, norm=norm, zero_init=self.zero_init)

        x = self.stem(video, train, conv, norm)
        endpoints = {"stem": x}
        for i, blocks in enumerate(self.stage_sizes):
            space = self.spatial_strides[i]
            x = run_stage(
                x,
                train,
                f"stage{i + 1}",
                partial(block, self.width * 2**i),
                blocks,
                self.temporal_kernels[i],
                (self.temporal_strides[i], space, space),
                self.non_local[i],
                partial(NonLocal, conv=conv, norm=norm, **form),
            )
            endpoints[f"stage{i + 1}"] = x
            if i == 0 and self.stage1_pool > 1:
                x = max_pool(x, (self.stage1_pool, 1, 1), (self.stage1_pool, 1, 1))

        x = x.astype(jnp.float32).mean((1, 2, 3))
        endpoints["pre_logits"] = x
        return classify(x, self.num_classes, self.dropout, train, self.param_dtype), endpoints

    def stem(self, video: jax.Array, train: bool, conv: Callable, norm: Callable) -> jax.Array:
        """Applies the layers before the stages."""
        return run_stem(video, train, self.width, self.stem_frames, self.stem_pool, conv, norm)

    def block(self) -> Callable[..., nn.Module]:
        """The class of the blocks."""
        return Bottleneck if self.bottleneck else BasicBlock


def classify(
    x: jax.Array, num_classes: int, dropout: float, train: bool, param_dtype: DTypeLike
) -> jax.Array:
    """Applies dropout and the linear layer to features [B, D]; returns the features if `num_classes` is 0."""
    if not num_classes:
        return x
    x = nn.Dropout(dropout, deterministic=not train)(x)
    init = nn.initializers.normal(0.01)
    return nn.Dense(num_classes, kernel_init=init, param_dtype=param_dtype, name="head")(x)


TINY = {"stage_sizes": (1, 1, 1, 1), "width": 8, "zero_init": False}
# ResNet-50 on clips of eight frames, which keep their rate.
R50 = dict(
    stage_sizes=(3, 4, 6, 3),
    bottleneck=True,
    stem_frames=1,
    stem_pool=True,
    temporal_strides=(1, 1, 1, 1),
    zero_init=True,
)
C2D = dict(**R50, temporal_kernels=(1, 1, 1, 1), stage1_pool=2)
I3D = C2D | dict(stem_frames=5, temporal_kernels=(3, (3, 1), (3, 1), (1, 3)))

TRAN = dict(
    paper="A Closer Look at Spatiotemporal Convolutions for Action Recognition", year=2018, arxiv="1711.11248"
)
WANG = dict(paper="Non-local Neural Networks", year=2018, arxiv="1711.07971")
ZOO = "pytorchvideo model zoo, Kinetics-400, {} frames x stride {}, 256x256"
_TORCHVISION = "torchvision model zoo, Kinetics-400, 16 frames at 15 fps, 112x112"
_MIXED = dict(temporal_kernels=(3, 1, 1, 1), temporal_strides=(1, 1, 1, 1))

# Fields of the model and its temporal mechanism; parameters, GMACs and accuracy on Kinetics-400 as published.
_18 = {
    "r3d_18": dict(
        fields={}, temporal="3D convolutions", params=33_371_472, gmacs=40.697, top1=63.2, top5=83.479
    ),
    "mc3_18": dict(
        fields=_MIXED,
        temporal="3D convolutions in the stem and first stage, 2D after",
        params=11_695_440,
        gmacs=43.343,
        top1=63.96,
        top5=84.13,
    ),
}
_50 = {
    "c2d_r50_8x8": dict(
        fields=C2D,
        temporal="max over pairs of frames, then average",
        params=24_327_632,
        gmacs=19.49,
        top1=71.46,
        top5=89.68,
    ),
    "i3d_r50_8x8": dict(
        fields=I3D,
        temporal="2D kernels inflated to 3 and 5 frames",
        params=28_043_472,
        gmacs=28.41,
        top1=73.27,
        top5=90.7,
    ),
}

for _name, _preset in _18.items():
    register_model(
        ModelSpec(
            name=_name,
            family="resnet3d",
            module=ResNet3D,
            preset=_preset["fields"],
            tiny=TINY,
            input_shape=(16, 112, 112, 3),
            tiny_input_shape=(8, 32, 32, 3),
            temporal=_preset["temporal"],
            order_aware=True,
            fps=15,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("Kinetics-400", _preset["top1"], _preset["top5"], "5x1", _TORCHVISION),),
            weights=f"torchvision.models.video.{_name}, KINETICS400_V1",
            licence="BSD-3-Clause",
            **TRAN,
        )
    )

# The mean and standard deviation that pytorchvideo and PySlowFast train with.
GREY = dict(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))

for _name, _preset in _50.items():
    register_model(
        ModelSpec(
            name=_name,
            family="resnet3d",
            module=ResNet3D,
            preset=_preset["fields"],
            tiny=TINY,
            input_shape=(8, 224, 224, 3),
            tiny_input_shape=(4, 32, 32, 3),
            stride=8,
            fps=30,
            inflates="resnet50",
            temporal=_preset["temporal"],
            order_aware=True,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("Kinetics-400", _preset["top1"], _preset["top5"], "10x3", ZOO.format(8, 8)),),
            weights=f"pytorchvideo model zoo, {_name.split('_')[0].upper()}_8x8_R50",
            licence="Apache-2.0",
            **WANG,
            **GREY,
        )
    )
