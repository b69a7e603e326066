"""Classical optical flow on the host, how it is stored in bytes, and how it is drawn. Knows no model."""

from vidjax.flow.classical import METHODS, estimator, flow
from vidjax.flow.coding import dequantise, picture, quantise

__all__ = ["METHODS", "dequantise", "estimator", "flow", "picture", "quantise"]
