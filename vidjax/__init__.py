"""vidjax: video understanding in JAX and Flax.

Public names are imported on first use, so that data workers, which only import `vidjax.data`, start quickly.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load_pretrained", "spec"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "vidjax.convert" if name == "load_pretrained" else "vidjax.models"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'vidjax' has no attribute '{name}'")
