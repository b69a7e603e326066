"""Times forward passes at full size on this machine's device, with zeros for weights and inputs."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vidjax.analysis.params import abstract_variables
from vidjax.registry import InputShape, create_model, dummy_input

PASSES = 5


def forward_seconds(name: str, shape: InputShape, options: Mapping[str, Any]) -> float:
    """Times `apply` on one input of `shape`, without batch axis, in float32; returns the median of PASSES."""
    model, variables = _zeros(name, shape, options)
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False)[0])
    return _seconds(apply, variables, dummy_input(shape, make=jnp.zeros))


def step_seconds(name: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> float:
    """Times `step` on one frame of a streaming model, as `forward_seconds`; `shape` is that of a clip."""
    model, variables = _zeros(name, shape, options)
    step = jax.jit(lambda v, state, x: model.apply(v, state, x, method="step"))
    state = model.init_state(1, shape[1:])
    return _seconds(step, variables, state, dummy_input(shape[1:], make=jnp.zeros))


def matmul_gmacs_per_second() -> float:
    """Measures the throughput of a float32 matrix product."""
    n = 2048 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((n, n))
    return n**3 / 1e9 / _seconds(jax.jit(jnp.dot), x, x)


def _zeros(name: str, shape: InputShape, options: Mapping[str, Any]) -> tuple[Any, Any]:
    model = create_model(name, **options)
    return model, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_variables(model, shape))


def _seconds(fn: Callable, *args: Any) -> float:
    jax.block_until_ready(fn(*args))  # compiles
    durations = []
    for _ in range(PASSES):
        start = time.perf_counter()
        jax.block_until_ready(fn(*args))
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)
