"""Weights of other projects: read, recognized, converted both ways, inflated. See docs/weights.md."""

from vidjax.convert.checkpoint import convert_file, export_file
from vidjax.convert.load import load, load_pretrained, read_weights

__all__ = ["convert_file", "export_file", "load", "load_pretrained", "read_weights"]
