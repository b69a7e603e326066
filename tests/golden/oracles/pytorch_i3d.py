"""The PyTorch port of I3D, github.com/piergiaj/pytorch-i3d: a clone of it on PYTHONPATH."""

import pytorch_i3d

from oracles import Case

STAGES = {
    "MaxPool3d_2a_3x3": "stem",
    "Conv3d_2c_3x3": "stage1",
    "Mixed_3c": "stage2",
    "Mixed_4f": "stage3",
    "Mixed_5c": "stage4",
}


def _call(model, x):
    """Of a map smaller than the window of the last pooling, 2x7x7, all is averaged."""
    sizes = [-(-n // step) for n, step in zip(x.shape[2:], (8, 32, 32))]
    model.avg_pool.kernel_size = tuple(map(min, (2, 7, 7), sizes))
    return model(x).mean(2)


def _case(channels):
    return Case(
        lambda classes: pytorch_i3d.InceptionI3d(classes, in_channels=channels).eval(),
        (1, 13, 64, 70, channels),
        STAGES,
        [
            (400, (1, 16, 224, 224, channels)),
            (7, (1, 17, 223, 217, channels)),
            (3, (2, 30, 49, 70, channels)),
        ],
        options={"norm_scale": True},  # which the port has
        call=_call,
        package="torch",
    )


CASES = {"i3d_inception_rgb": _case(3), "i3d_inception_flow": _case(2)}
