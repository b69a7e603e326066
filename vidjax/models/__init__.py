"""Every architecture, one paper or family per file. Importing this package registers them all."""

from vidjax.models import probes  # noqa: F401
from vidjax.models.conv3d import (  # noqa: F401
    c3d,
    csn,
    i3d,
    i3d_efficientnet_lite,
    movinet,
    non_local,
    r2plus1d,
    resnet3d,
    s3d,
    slowfast,
    x3d,
    x3d_expansion,
)
from vidjax.models.frame import frame_model, fusion, karpathy, tsm, tsn  # noqa: F401
from vidjax.models.image import cnn_m, efficientnet_lite, inception, mobilenet, resnet, vgg, vit  # noqa: F401
from vidjax.models.masked import mae, mae_st, videomae  # noqa: F401
from vidjax.models.motion import two_stream  # noqa: F401
from vidjax.models.recurrent import cnn_rnn, recurrent_conv  # noqa: F401
from vidjax.models.transformers import mvit, timesformer, video_swin, vivit, vtn  # noqa: F401
from vidjax.registry import create_model, list_models, spec

__all__ = ["create_model", "list_models", "spec"]
