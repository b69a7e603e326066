"""R(2+1)D: 3D convolutions factorized into a spatial one, a norm, a ReLU and a temporal one.

"A Closer Look at Spatiotemporal Convolutions for Action Recognition", Tran et al., CVPR 2018,
arXiv:1711.11248, section 3.5. Input 16x112x112, or 32x112x112 for 34 layers. As in torchvision there is no
pooling after the stem.

The intermediate width keeps the number of parameters of the replaced 3D convolution,
M = floor(t d^2 N_in N_out / (d^2 N_in + t N_out)), 45 in the stem. torchvision uses the M of a block's first
convolution for the second one too, which differs where the block widens; "paper" computes M per convolution,
as the authors' code does. The authors' weights were trained with `bn_epsilon=1e-3`.

`r2plus1d_r50_16x4` follows pytorchvideo: bottlenecks whose 3x3x3 convolution is factorized into time first,
then space, without a change of width, after a 2D stem. Input 16x224x224.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax

from vidjax.errors import unknown
from vidjax.models.conv3d.resnet3d import GREY, TRAN, ZOO, BasicBlock, Bottleneck, ResNet3D, Steps
from vidjax.registry import ModelSpec, Result, register_model

RULES = ("paper", "torchvision")


def middle_width(entering: int, leaving: int, frames: int = 3, side: int = 3) -> int:
    """Returns M of section 3.5, the middle channels that keep the number of parameters of the 3D kernel."""
    area = side**2
    return frames * area * entering * leaving // (area * entering + frames * leaving)


class Conv2Plus1D(nn.Module):
    """Convolutions in space and in time with a norm and a ReLU between them.

    Attributes:
      features: output channels.
      middle: intermediate channels.
      strides: of T, H and W; each convolution has those of its own axes.
      time_first: whether the temporal convolution precedes the spatial one.
      conv, norm: constructors.
    """

    features: int
    middle: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    strides: Steps = (1, 1, 1)
    time_first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `x` [B, T, H, W, C] to [B, T', H', W', features]."""
        t, h, w = self.strides
        space = partial(self.conv, kernel_size=(1, 3, 3), strides=(1, h, w), padding=(0, 1, 1), name="space")
        time = partial(self.conv, kernel_size=(3, 1, 1), strides=(t, 1, 1), padding=(1, 0, 0), name="time")
        first, second = (time, space) if self.time_first else (space, time)
        x = nn.relu(self.norm(name="bn")(first(self.middle)(x), train))
        return second(self.features)(x)


class FactorisedBlock(BasicBlock):
    """A basic block of (2+1)D convolutions. `rule` is one of `RULES`, for the width in between."""

    rule: str = "paper"

    def window(self, name: str, x: jax.Array, entering: int, strides: Steps, train: bool) -> jax.Array:
        if self.rule not in RULES:
            raise unknown("rule of the width", self.rule, RULES)
        middle = middle_width(x.shape[-1] if self.rule == "paper" else entering, self.features)
        return Conv2Plus1D(self.features, middle, self.conv, self.norm, strides, name=name)(x, train)


class FactorisedBottleneck(Bottleneck):
    """A bottleneck with a (2+1)D convolution, which has all strides of the block."""

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.conv(self.features, (1, 1, 1), name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        window = Conv2Plus1D(
            self.features, self.features, self.conv, self.norm, self.strides, time_first=True, name="conv2"
        )
        y = nn.relu(self.norm(name="bn2")(window(y, train), train))
        y = self.conv(self.features * self.expansion, (1, 1, 1), name="conv3")(y)
        return self.last_norm("bn3")(y, train)


class R2Plus1D(ResNet3D):
    """`ResNet3D` of (2+1)D convolutions.

    Attributes:
      rule: the width inside a basic block's convolutions, one of `RULES`.
      stem_middle: the width inside the stem; 0 for a stem of one convolution over `stem_frames` frames.
    """

    rule: str = "paper"
    stem_middle: int = 45

    def stem(self, video: jax.Array, train: bool, conv: Callable, norm: Callable) -> jax.Array:
        if not self.stem_middle:
            return super().stem(video, train, conv, norm)
        x = conv(self.stem_middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), name="stem_conv")(video)
        x = nn.relu(norm(name="stem_bn")(x, train))
        x = conv(self.width, (3, 1, 1), 1, (1, 0, 0), name="stem_time_conv")(x)
        return nn.relu(norm(name="stem_time_bn")(x, train))

    def block(self) -> Callable[..., nn.Module]:
        return FactorisedBottleneck if self.bottleneck else partial(FactorisedBlock, rule=self.rule)


_TORCHVISION = "torchvision model zoo, Kinetics-400, 16 frames at 15 fps, 112x112"
_R50 = dict(
    stage_sizes=(3, 4, 6, 3),
    bottleneck=True,
    stem_frames=1,
    stem_middle=0,
    temporal_strides=(1, 1, 2, 2),
    spatial_strides=(2, 2, 2, 2),
    zero_init=True,
)
# Fields of the model, clip; parameters, GMACs and results as published.
_PRESETS = {
    "r2plus1d_18": dict(
        fields=dict(rule="torchvision"),
        frames=16,
        size=112,
        stride=1,
        params=31_505_325,
        gmacs=40.52,
        results=(Result("Kinetics-400", 67.463, 86.175, "5x1", _TORCHVISION),),
    ),
    "r2plus1d_18_paper": dict(
        fields={}, frames=16, size=112, stride=1, params=33_370_839, gmacs=41.5, results=()
    ),
    "r2plus1d_34": dict(
        fields=dict(stage_sizes=(3, 4, 6, 3)),
        frames=32,
        size=112,
        stride=1,
        params=63_697_175,
        gmacs=152.4,
        results=(
            Result("Kinetics-400", 72.0, 90.0, "10x1", "arXiv:1711.11248, table 4, from scratch"),
            Result("Kinetics-400", 74.3, 91.4, "10x1", "arXiv:1711.11248, table 4, from Sports-1M"),
        ),
    ),
    "r2plus1d_r50_16x4": dict(
        fields=_R50,
        frames=16,
        size=224,
        stride=4,
        params=28_107_600,
        gmacs=57.5,
        results=(Result("Kinetics-400", 76.01, 92.23, "10x3", ZOO.format(16, 4)),),
    ),
}
_WEIGHTS = {
    "r2plus1d_18": dict(
        weights="torchvision.models.video.r2plus1d_18, KINETICS400_V1", licence="BSD-3-Clause"
    ),
    "r2plus1d_r50_16x4": dict(weights="pytorchvideo model zoo, R2PLUS1D_16x4_R50", licence="Apache-2.0"),
}

for _name, _preset in _PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            family="r2plus1d",
            module=R2Plus1D,
            preset=_preset["fields"],
            tiny=dict(stage_sizes=(1, 1, 1, 1), width=8, zero_init=False),
            input_shape=(_preset["frames"], _preset["size"], _preset["size"], 3),
            tiny_input_shape=(8, 32, 32, 3),
            stride=_preset["stride"],
            fps={"r2plus1d_18": 15, "r2plus1d_r50_16x4": 30}.get(_name),
            temporal="3D convolutions factorized into space and time",
            order_aware=True,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=_preset["results"],
            **_WEIGHTS.get(_name, {}),
            **TRAN,
            **(GREY if _preset["fields"] is _R50 else {}),
        )
    )
