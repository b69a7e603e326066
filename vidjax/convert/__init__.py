"""Import, export and inflation of pretrained weights from other projects. See docs/weights.md."""

from vidjax.convert.checkpoint import convert_file, export_file
from vidjax.convert.load import load, load_pretrained, read_weights

__all__ = ["convert_file", "export_file", "load", "load_pretrained", "read_weights"]
