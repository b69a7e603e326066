"""EfficientNet-Lite0 inflated in time.

Papers: Carreira & Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR
2017, arXiv:1705.07750, section 2.4 (inflation); Tan & Le, arXiv:1905.11946 (the network, see
`vidjax.models.image.efficientnet_lite`). Input: video [B, T, H, W, C].

The stem and the depthwise convolutions span three frames, 1x1 convolutions one, and no layer reduces T, as in
X3D. Nothing is published; a combination of both papers.
"""

import flax.linen as nn
import jax

from vidjax.models.image.efficientnet_lite import MEAN, STD, TINY, EfficientNetLite
from vidjax.registry import ModelSpec, register_model


class I3DEfficientNetLite(EfficientNetLite):
    """EfficientNet-Lite for clips. The other attributes are those of `EfficientNetLite`.

    Attributes:
      temporal_kernel: frames of the stem's and the depthwise windows.
    """

    temporal_kernel: int = 3

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints (stem, stage1-7, each [B, T, H',
        W', C']; pre_logits [B, D])."""
        return super().__call__(video, train)


register_model(
    ModelSpec(
        name="i3d_efficientnet_lite0",
        family="i3d",
        module=I3DEfficientNetLite,
        preset={},
        tiny=TINY,
        input_shape=(8, 224, 224, 3),
        tiny_input_shape=(4, 32, 32, 3),
        stride=8,
        paper="Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset",
        year=2017,
        arxiv="1705.07750",
        temporal="depthwise 2D kernels inflated to 3 frames",
        order_aware=True,
        mean=MEAN,
        std=STD,
        inflates="efficientnet_lite0",
    )
)
