"""Applying a model to many clips: on a mesh, on several hosts, padded, masked and gathered."""

from vidjax.inference.engine import Engine, batched

__all__ = ["Engine", "batched"]
