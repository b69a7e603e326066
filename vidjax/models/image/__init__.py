"""Image networks: backbones of video models, and sources of pretrained weights."""
