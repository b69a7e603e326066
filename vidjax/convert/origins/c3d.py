"""Rules for C3D in PyTorch, with the layer names of the authors' Caffe model (conv1, conv3a, ..., fc8)."""

from vidjax.convert.engine import chain, linear, reshape, rule, transpose
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish

# PyTorch flattens [C, T, H, W] with T = 1, vidjax flattens [T, H, W, C].
_FC6 = chain(
    reshape((-1, 8192), (-1, 512, 4, 4)), transpose(2, 3, 1, 0), reshape((4, 4, 512, -1), (8192, -1))
)

C3D = (
    *linear("conv1", "stem_conv"),
    *linear("conv2", "stage2_conv0"),
    *(
        r
        for i in (3, 4, 5)
        for j, part in enumerate("ab")
        for r in linear(f"conv{i}{part}", f"stage{i}_conv{j}")
    ),
    rule("fc6.weight", "params/fc6/kernel", _FC6),
    rule("fc6.bias", "params/fc6/bias"),
    *linear("fc7", "fc7"),
    *linear("fc8", "head"),
)
RULES = {"c3d": C3D}

declare(
    "c3d_pytorch",
    RULES,
    source="github.com/DavideA/c3d-pytorch, predict.py: pixels from 0 to 255, none subtracted",
    unverified="the accuracy: the authors' Caffe subtracts a mean clip, and may read BGR",
    stride=1,
    resize_to=(112, 200),
    resize="torchvision",
    clips=10,
    crops=1,
    mean=(0.0, 0.0, 0.0),
    std=(1 / 255,) * 3,
)

publish(
    "c3d_pytorch",
    "c3d",
    "http://imagelab.ing.unimore.it/files/c3d_pytorch/c3d.pickle",
    "Sports-1M",
    file="c3d.pth",
    licence="MIT",
)
