"""Non-local networks: I3D of ResNet-50 with five blocks of attention over all positions of the clip.

"Non-local Neural Networks", Wang et al., CVPR 2018, arXiv:1711.07971, table 2c: blocks after every second
residual block of the second and third stage, in PySlowFast's places. Input 8x224x224. The block itself is
`vidjax.layers.non_local`; `non_local` and `non_local_form` put it into any network of `ResNet3D`:

    create_model("c2d_r50_8x8", non_local=((), (1, 3), (1, 3, 5), ()), non_local_form="gaussian")
"""

from vidjax.models.conv3d.resnet3d import GREY, I3D, TINY, WANG, ResNet3D
from vidjax.registry import ModelSpec, Result, register_model

register_model(
    ModelSpec(
        name="i3d_nln_r50_8x8",
        family="nonlocal",
        module=ResNet3D,
        preset=dict(**I3D, non_local=((), (1, 3), (1, 3, 5), ())),
        tiny=dict(**TINY, non_local=((), (0,), (), ())),
        input_shape=(8, 224, 224, 3),
        tiny_input_shape=(4, 32, 32, 3),
        stride=8,
        fps=30,
        inflates="resnet50",
        temporal="inflated 2D kernels and attention over space and time",
        order_aware=True,
        params=35_401_936,
        results=(
            Result(
                "Kinetics-400", 74.0, 91.1, "10x3", "PySlowFast model zoo, Kinetics-400, 8 frames x stride 8"
            ),
        ),
        weights="PySlowFast model zoo, I3D_NLN_8x8_R50",
        licence="Apache-2.0",
        **WANG,
        **GREY,
    )
)
