"""Weights, inputs and output samples that are reproducible from a seed. Depends on numpy only."""

import hashlib
import math

import numpy as np


def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Samples the array `name` of a PyTorch state dict. Depends only on name, shape and seed.

    The scales keep the activations of a ResNet within a few orders of magnitude of one at any depth.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    rng = np.random.RandomState(int.from_bytes(digest[:4], "big"))  # stable across versions
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        x = rng.uniform(0.5, 1.0, shape)
    elif len(shape) > 1:
        x = rng.uniform(-1, 1, shape) * math.sqrt(6 / np.prod(shape[1:]))  # variance 2 / fan-in
    else:
        x = rng.uniform(-0.2, 0.2, shape)
    return x.astype(np.float32)


def draw_all(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """Samples all arrays: {name: shape} -> {name: array}."""
    return {name: draw(name, tuple(shape), seed) for name, shape in shapes.items()}


def draw_input(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns a float32 input [B, (T,) H, W, C] with the range of a normalized clip."""
    return np.random.RandomState(seed).uniform(-2, 2, shape).astype(np.float32)


def sample(x: np.ndarray, count: int = 1024) -> np.ndarray:
    """Returns at most `count` evenly spaced entries of a channels-last array."""
    flat = np.asarray(x).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(int)]


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest absolute difference divided by the largest absolute value of `expected`."""
    return float(np.max(np.abs(got - expected)) / np.max(np.abs(expected)))
