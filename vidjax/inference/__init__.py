"""Applies models to batches of clips on a mesh, over one or several hosts."""

from vidjax.inference.engine import Engine, batched, endpoints

__all__ = ["Engine", "batched", "endpoints"]
