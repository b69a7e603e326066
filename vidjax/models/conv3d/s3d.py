"""S3D: Inception-v1 for clips with separable convolutions, space before time.

Paper: Xie et al., "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video
Classification", ECCV 2018, arXiv:1712.04851, Figure 6c, without the gating of S3D-G. Input: 64 frames of
224x224 at stride 1.

A convolution of kxkxk becomes one of 1xkxk and one of kx1x1, each with BatchNorm and ReLU; pointwise ones
stay. Padding is torchvision's, as the parameters are: (window - 1) / 2 on both sides, of pooling as well.
"""

from vidjax.models.conv3d.i3d import I3D
from vidjax.models.image.inception import TINY
from vidjax.registry import ModelSpec, Result, register_model


class S3D(I3D):
    """I3D with separable convolutions. The attributes are those of `Inception`."""

    separable = True


register_model(
    ModelSpec(
        name="s3d",
        family="s3d",
        module=S3D,
        preset=dict(padding="half", momentum=0.999, dropout=0.2),
        tiny=TINY,
        input_shape=(64, 224, 224, 3),
        tiny_input_shape=(8, 32, 32, 3),
        paper="Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video Classification",
        year=2018,
        arxiv="1712.04851",
        temporal="3D convolutions factorized into space, then time",
        order_aware=True,
        fps=15,
        params=8_320_048,
        gmacs=71.92,
        results=(
            Result("Kinetics-400", 68.368, 88.05, "1x1", "torchvision model zoo, 128 frames at 15 fps"),
        ),
        weights="torchvision.models.video.s3d, KINETICS400_V1",
        licence="BSD-3-Clause",
    )
)
