"""Classical optical flow on the host: estimation, encoding as bytes, and visualization."""

from vidjax.flow.classical import METHODS, estimator, flow
from vidjax.flow.coding import dequantise, picture, quantise

__all__ = ["METHODS", "dequantise", "estimator", "flow", "picture", "quantise"]
