"""Every architecture, one paper or family per file. Importing this package registers them all."""

from vidjax.models import (  # noqa: F401
    c3d,
    cnn_m,
    cnn_rnn,
    csn,
    fusion,
    i3d,
    inception,
    karpathy,
    mae,
    mae_st,
    mobilenet,
    movinet,
    mvit,
    non_local,
    probes,
    r2plus1d,
    recurrent_conv,
    resnet,
    resnet3d,
    s3d,
    slowfast,
    timesformer,
    tsm,
    tsn,
    two_stream,
    vgg,
    video_swin,
    videomae,
    vit,
    vivit,
    vtn,
    x3d,
)
from vidjax.registry import create_model, list_models, spec

__all__ = ["create_model", "list_models", "spec"]
