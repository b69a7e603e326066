"""Channel-separated networks: 3D ResNets whose channels interact in 1x1x1 convolutions alone.

"Video Classification with Channel-Separated Convolutional Networks", Tran et al., ICCV 2019,
arXiv:1904.02811. Table 1 (the ResNet-152), figure 2 (the blocks), section 4. Input 32x224x224.
The 3x3x3 convolution of a bottleneck is depthwise. ip-CSN, "interaction-preserved", puts a
1x1x1 convolution in front of it, ir-CSN, "interaction-reduced", does not. The frame rate
halves with the frame size, from the second stage on.
The 152 layers are the authors' (VMZ), whose norms have an epsilon of 1e-3; pytorchvideo's 101 have 1e-5.
"""

import flax.linen as nn
import jax

from vidjax.models.conv3d.resnet3d import GREY, BasicBlock, ResNet3D, Steps
from vidjax.registry import ModelSpec, Result, register_model


class ReducedBottleneck(BasicBlock):
    """1x1x1, channel-wise 3x3x3 and 1x1x1 convolutions (figure 2, ir)."""

    expansion = 4

    def branch(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.conv(self.features, (1, 1, 1), name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = self.window("conv2", y, x.shape[-1], self.strides, train)
        y = nn.relu(self.norm(name="bn2")(y, train))
        y = self.conv(self.features * self.expansion, (1, 1, 1), name="conv3")(y)
        return self.last_norm("bn3")(y, train)

    def window(self, name: str, x: jax.Array, entering: int, strides: Steps, train: bool) -> jax.Array:
        k = self.temporal_kernel
        alone = dict(feature_group_count=self.features)
        return self.conv(self.features, (k, 3, 3), strides, (k // 2, 1, 1), name=name, **alone)(x)


class PreservedBottleneck(ReducedBottleneck):
    """A `ReducedBottleneck` with a 1x1x1 convolution before the depthwise one (Figure 2, ip)."""

    def window(self, name: str, x: jax.Array, entering: int, strides: Steps, train: bool) -> jax.Array:
        x = self.conv(self.features, (1, 1, 1), name="conv2_point")(x)
        return super().window(name, self.norm(name="bn2_point")(x, train), entering, strides, train)


class CSN(ResNet3D):
    """A 3D ResNet of channel-separated bottlenecks.

    Attributes:
      preserved: ip-CSN in place of ir-CSN.
    """

    preserved: bool = False

    def block(self) -> type[BasicBlock]:
        return PreservedBottleneck if self.preserved else ReducedBottleneck


_ZOO = "pytorchvideo model zoo, Kinetics-400, 32 frames x stride 2, 256x256"
_VMZ = "arXiv:1904.02811, from scratch, 32 frames x stride 2, 256x256"
# name: (fields, parameters, GMACs, results, where the weights are)
_152 = dict(stage_sizes=(3, 8, 36, 3), bn_epsilon=1e-3)
PRESETS = {
    "csn_ir_50": dict(
        fields=dict(stage_sizes=(3, 4, 6, 3)), params=13_131_152, gmacs=42.3, result=None, weights=""
    ),
    "csn_ir_101": dict(
        fields=dict(stage_sizes=(3, 4, 23, 3)),
        params=22_213_776,
        gmacs=56.5,
        result=Result("Kinetics-400", 77.0, 92.9, "10x3", _ZOO),
        weights="pytorchvideo model zoo, CSN_32x2_R101",
    ),
    "csn_ir_152": dict(
        fields=_152,
        params=29_703_568,
        gmacs=74.05,
        result=Result("Kinetics-400", 76.5, None, "10x3", _VMZ),
        weights="VMZ model zoo, ir_csn_152",
    ),
    "csn_ip_152": dict(
        fields=dict(**_152, preserved=True),
        params=33_016_592,
        gmacs=83.3,
        result=Result("Kinetics-400", 77.8, None, "10x3", _VMZ),
        weights="VMZ model zoo, ip_csn_152",
    ),
}

for _name, _preset in PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            family="csn",
            module=CSN,
            preset=dict(stem_pool=True, zero_init=True, **_preset["fields"]),
            tiny=dict(
                stage_sizes=(1, 1),
                width=4,
                temporal_strides=(1, 2),
                spatial_strides=(1, 2),
                bn_epsilon=1e-5,
                zero_init=False,
            ),
            input_shape=(32, 224, 224, 3),
            tiny_input_shape=(4, 32, 32, 3),
            paper="Video Classification with Channel-Separated Convolutional Networks",
            year=2019,
            arxiv="1904.02811",
            temporal="channel-wise 3D convolutions",
            order_aware=True,
            stride=2,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(_preset["result"],) if _preset["result"] else (),
            weights=_preset["weights"],
            licence="Apache-2.0" if _preset["weights"] else "",
            **GREY,
        )
    )
