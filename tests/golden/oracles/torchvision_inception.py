"""torchvision's GoogLeNet and S3D."""

import torchvision

from oracles import Case

IMAGES = [(1000, (2, 224, 224, 3)), (10, (1, 97, 131, 3)), (3, (3, 64, 65, 3)), (400, (1, 75, 64, 3))]
CLIPS = [(400, (1, 16, 224, 224, 3)), (11, (2, 14, 65, 131, 3)), (3, (1, 21, 239, 257, 3))]


def _googlenet(classes):
    return torchvision.models.googlenet(
        weights=None, num_classes=classes, aux_logits=False, transform_input=False, init_weights=False
    ).eval()


def _s3d_smaller(model, x):
    """Of a map smaller than the window of the last pooling, 2x7x7, all is averaged."""
    sizes = [-(-n // step) // 2 for n, step in zip(x.shape[2:], (4, 16, 16))]
    model.avgpool.kernel_size = tuple(map(min, (2, 7, 7), sizes))
    return model(x)


def _s3d(classes):
    return torchvision.models.video.s3d(weights=None, num_classes=classes).eval()


CASES = {
    "inception_v1_bn": Case(
        _googlenet,
        (2, 96, 96, 3),
        {
            "maxpool1": "stem",
            "conv3": "stage1",
            "inception3b": "stage2",
            "inception4e": "stage3",
            "inception5b": "stage4",
            "avgpool": "pre_logits",
        },
        IMAGES,
    ),
    "s3d": Case(
        _s3d,
        (1, 14, 64, 80, 3),
        {
            "features.1": "stem",
            "features.3": "stage1",
            "features.6": "stage2",
            "features.12": "stage3",
            "features.15": "stage4",
        },
        CLIPS,
        call=_s3d_smaller,
    ),
}
