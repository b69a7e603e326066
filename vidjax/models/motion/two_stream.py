"""Two-stream networks: a spatial stream on one RGB frame and a temporal stream on optical flow.

Paper: Simonyan & Zisserman, "Two-Stream Convolutional Networks for Action Recognition in Videos", NIPS 2014,
arXiv:1406.2199, figure 1; and for fusion inside of the network, Feichtenhofer et al., "Convolutional
Two-Stream Network Fusion for Video Action Recognition", CVPR 2016, arXiv:1604.06573, section 3.
Input: video [B, T, H, W, 3] (the middle frame counts), flow [B, L, H, W, 2] (x, then y), or
dict(rgb=..., flow=...) of both.

  spatial       an image network on one frame.
  temporal      the same on L fields of flow, stacked in the channels of the first convolution (section 3.1,
                equation 1), each minus its mean displacement, which compensates camera motion.
  joint         both at once; scores are the average of the two softmaxes.
  joint, fused  after one stage the features of the temporal stream are merged into the spatial stream, which
                continues with both; the temporal stream continues alone, and both predictions are averaged
                (arXiv:1604.06573, section 3.4).

Deviations: on ResNets as well as on CNN-M-2048. The papers train the streams separately (then `vidjax fuse`
averages two runs, or puts an SVM on them) or the fused part on top of trained streams; here joint models can
also be trained end to end. Fusion is at one time step, without the second paper's 3D pooling over time.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jax.typing import ArrayLike

from vidjax.errors import unknown
from vidjax.layers.conv import Conv
from vidjax.models.frame.frame_model import FrameModel, Output
from vidjax.models.image.resnet import BeforeBlock
from vidjax.registry import (
    FLOW_MEAN,
    FLOW_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ModelSpec,
    Result,
    fields,
    register_model,
)

AVERAGES = ("softmax", "logits")
FUSIONS = ("add", "concat", "conv")


class SpatialStream(FrameModel):
    """Classifies the middle frame, T // 2."""

    @nn.compact
    def __call__(
        self, video: jax.Array, train: bool = False, before_block: BeforeBlock | None = None
    ) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and the backbone's endpoints. `before_block`:
        see `ResNet`; for other trunks None."""
        hook = {"before_block": before_block} if before_block else {}
        return self.classify(*self.image_features(video[:, video.shape[1] // 2], train, **hook), train)


class TemporalStream(FrameModel):
    """Classifies a stack of flow.

    Attributes:
      flow_frames: L, the fields in a stack.
    """

    flow_frames: int = 10

    @nn.compact
    def __call__(self, flow: jax.Array, train: bool = False) -> Output:
        """Maps flow [B, L, H, W, 2] to logits float32 [B, K] and the backbone's endpoints.

        Raises:
          ValueError: a stack of another depth.
        """
        b, depth, h, w, c = flow.shape
        if depth != self.flow_frames:
            raise ValueError(f"the input has {depth} flow fields, but flow_frames is {self.flow_frames}")
        flow = flow - flow.mean((2, 3), keepdims=True)
        stacked = flow.transpose(0, 2, 3, 1, 4).reshape(b, h, w, depth * c)
        return self.classify(*self.image_features(stacked, train), train)


class TwoStream(FrameModel):
    """Both streams, each with its own classifier, averaged. Fields of `FrameModel` are those of both.

    Attributes:
      flow_frames: L, the fields in a stack of flow.
      flow_trunk_options: fields of the temporal stream's trunk where they are not those of `trunk_options`.
      average: what is averaged, "softmax" (the paper, section 2) or "logits". Of softmaxes, the result is the
        logarithm, whose softmax is the average again.
    """

    TRUNKS = ("spatial/trunk", "temporal/trunk")  # where weights of the image trunk go

    flow_frames: int = 10
    flow_trunk_options: Mapping[str, Any] = FrozenDict()
    average: str = "softmax"

    @nn.compact
    def __call__(self, video: dict[str, jax.Array], train: bool = False) -> Output:
        """Maps video dict(rgb=[B, T, H, W, 3], flow=[B, L, H, W, 2]) to logits float32 [B, K] and endpoints.

        Endpoints are those of the spatial stream, those of the temporal stream with the prefix "flow_", and
        pre_logits [B, 2 D] of both.
        """
        if self.average not in AVERAGES:
            raise unknown("average", self.average, AVERAGES)
        shared = {name: getattr(self, name) for name in fields(FrameModel)}
        own = {"trunk_options": {**self.trunk_options, **self.flow_trunk_options}}
        temporal = TemporalStream(**shared | own, flow_frames=self.flow_frames, name="temporal")
        b, flow = temporal(video["flow"], train)
        spatial = SpatialStream(**shared, name="spatial")
        a, endpoints = spatial(video["rgb"], train, self.merge(flow))
        endpoints = endpoints | {f"flow_{k}": v for k, v in flow.items() if k != "pre_logits"}
        x = endpoints["pre_logits"] = jnp.concatenate([endpoints["pre_logits"], flow["pre_logits"]], -1)
        if not self.num_classes:
            return x, endpoints
        if self.average == "logits":
            return (a + b) / 2, endpoints
        return jnp.logaddexp(nn.log_softmax(a), nn.log_softmax(b)) - np.log(2), endpoints

    def merge(self, flow: dict[str, jax.Array]) -> BeforeBlock | None:
        """Returns the hook that merges the temporal stream's endpoints into the spatial stream, or None."""
        return None


class FusedTwoStream(TwoStream):
    """Two ResNet streams, fused after a stage (arXiv:1604.06573, section 3.1).

    Attributes:
      fusion: "add"; "concat": the next stage takes in the channels of both; or "conv": a 1x1 convolution with
        bias of the channels of both, down to as many as each has. It begins as the sum.
      fuse_after: the stage, 1 to 3.
    """

    fusion: str = "conv"
    fuse_after: int = 3

    def merge(self, flow: dict[str, jax.Array]) -> BeforeBlock:
        if self.fusion not in FUSIONS:
            raise unknown("fusion", self.fusion, FUSIONS)
        if self.fuse_after not in (1, 2, 3):
            raise ValueError(f"fuse_after is {self.fuse_after}: a stage from 1 to 3")
        motion, place = flow[f"stage{self.fuse_after}"], f"stage{self.fuse_after + 1}_block0"
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = None
        if self.fusion == "conv":
            # Created here to be a submodule of this model, not of the backbone.
            conv = Conv(
                motion.shape[-1], (1, 1), use_bias=True, kernel_init=_sum, name="fusion_conv", **types
            )

        def before_block(name: str, x: jax.Array) -> tuple[jax.Array, None]:
            if name != place:
                return x, None
            if self.fusion == "add":
                return x + motion, None
            stacked = jnp.concatenate([x, motion], -1)
            return conv(stacked) if conv else stacked, None

        return before_block


def _sum(key: jax.Array, shape: tuple[int, ...], dtype: ArrayLike) -> jax.Array:
    """Initializes a kernel [1, 1, 2 D, D] to add the two halves of its input."""
    identity = jnp.eye(shape[-1], dtype=dtype)
    return jnp.concatenate([identity, identity]).reshape(shape)


_SIMONYAN = dict(
    paper="Two-Stream Convolutional Networks for Action Recognition in Videos", year=2014, arxiv="1406.2199"
)
_FEICHTENHOFER = dict(
    paper="Convolutional Two-Stream Network Fusion for Video Action Recognition",
    year=2016,
    arxiv="1604.06573",
)


def _about(name: str, size: int) -> dict[str, Any]:
    """Returns the input fields of a model; `size` is the frame size of the tiny preset."""
    rgb, flow = (1, 224, 224, 3), (10, 224, 224, 2)
    tiny_rgb, tiny_flow = (1, size, size, 3), (4, size, size, 2)
    if name == "spatial":
        return dict(
            input_shape=rgb,
            tiny_input_shape=tiny_rgb,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            temporal="none: one frame",
            order_aware=False,
        )
    if name == "temporal":
        return dict(
            input_shape=flow,
            tiny_input_shape=tiny_flow,
            mean=FLOW_MEAN,
            std=FLOW_STD,
            temporal="optical flow stacked in the first convolution's channels",
            order_aware=True,
        )
    return dict(
        input_shape=dict(rgb=rgb, flow=flow),
        tiny_input_shape=dict(rgb=tiny_rgb, flow=tiny_flow),
        mean=dict(rgb=IMAGENET_MEAN, flow=FLOW_MEAN),
        std=dict(rgb=IMAGENET_STD, flow=FLOW_STD),
        temporal="a frame and stacked optical flow",
        order_aware=True,
    )


def _ucf101(top1: float, views: str = "25x10", how: str = "") -> tuple[Result, ...]:
    return (Result("UCF101", top1, None, views, f"arXiv:1406.2199, table 4{how}"),)


_STACK = dict(flow_frames=4)
# Class, its fields, the tiny preset and its frame size, paper, and accuracy as published (of `cnn_m`: of two
# networks trained separately).
_MODELS = {
    "cnn_m_spatial": dict(
        module=SpatialStream,
        fields=dict(trunk="cnn_m_2048", trunk_options=dict(dropout=0.9), dropout=0.9),
        tiny=dict(trunk_options=dict(tiny=True), dropout=0.0),
        size=64,
        paper=_SIMONYAN,
        results=_ucf101(73.0),
    ),
    "cnn_m_temporal": dict(
        module=TemporalStream,
        fields=dict(trunk="cnn_m_2048", trunk_options=dict(dropout=0.9, norms=1), dropout=0.9),
        tiny=dict(trunk_options=dict(tiny=True, norms=1), dropout=0.0, flow_frames=4),
        size=64,
        paper=_SIMONYAN,
        results=_ucf101(83.7),
    ),
    "cnn_m": dict(
        module=TwoStream,
        fields=dict(
            trunk="cnn_m_2048",
            trunk_options=dict(dropout=0.9),
            flow_trunk_options=dict(norms=1),
            dropout=0.9,
        ),
        tiny=dict(trunk_options=dict(tiny=True), dropout=0.0, flow_frames=4),
        size=64,
        paper=_SIMONYAN,
        results=_ucf101(86.9, how=", fusion by averaging"),
    ),
}
for _trunk in ("resnet18", "resnet50"):
    _tiny = dict(trunk_options=dict(tiny=True))
    _MODELS |= {
        f"{_trunk}_spatial": dict(
            module=SpatialStream, fields=dict(trunk=_trunk), tiny=_tiny, size=32, paper=_SIMONYAN, results=()
        ),
        f"{_trunk}_temporal": dict(
            module=TemporalStream,
            fields=dict(trunk=_trunk),
            tiny=_tiny | _STACK,
            size=32,
            paper=_SIMONYAN,
            results=(),
        ),
        _trunk: dict(
            module=TwoStream,
            fields=dict(trunk=_trunk),
            tiny=_tiny | _STACK,
            size=32,
            paper=_SIMONYAN,
            results=(),
        ),
        f"{_trunk}_fused": dict(
            module=FusedTwoStream,
            fields=dict(trunk=_trunk),
            tiny=_tiny | _STACK,
            size=32,
            paper=_FEICHTENHOFER,
            results=(),
        ),
    }

for _name, _preset in _MODELS.items():
    register_model(
        ModelSpec(
            name=f"two_stream_{_name}",
            family="two_stream",
            module=_preset["module"],
            preset=_preset["fields"],
            tiny=_preset["tiny"],
            num_classes=101,
            results=_preset["results"],
            **_about(_name.split("_")[-1], _preset["size"]),
            **_preset["paper"],
        )
    )
