"""Every architecture, one paper or family per file. Importing this package registers them all."""

from vidjax.models import (  # noqa: F401
    cnn_m,
    cnn_rnn,
    fusion,
    i3d,
    inception,
    mvit,
    non_local,
    r2plus1d,
    resnet,
    resnet3d,
    s3d,
    slowfast,
    tsm,
    tsn,
    two_stream,
    video_swin,
)
from vidjax.registry import create_model, list_models, spec

__all__ = ["create_model", "list_models", "spec"]
