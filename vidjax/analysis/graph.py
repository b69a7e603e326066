"""Traces a model to a jaxpr that is the same on every backend; nothing is computed or allocated."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from vidjax.analysis.params import abstract_variables
from vidjax.layers.lowering import lowering_platform
from vidjax.registry import InputShape, dummy_input


def words(text: str) -> frozenset[str]:
    """Returns the set of words of a text."""
    return frozenset(text.split())


ARITHMETIC = words(
    "add add_any sub mul div rem neg abs sign max min clamp square integer_pow floor ceil round "
    "nextafter mulhi population_count clz"
)
TRANSCENDENTAL = words(
    "exp exp2 expm1 log log1p pow sqrt rsqrt cbrt tanh logistic erf erfc erf_inv sin cos tan asin acos atan "
    "atan2 sinh cosh asinh acosh atanh lgamma digamma"
)
COMPARISON = words(
    "eq ne lt le gt ge eq_to le_to lt_to select_n and or xor not is_finite shift_left "
    "shift_right_logical shift_right_arithmetic"
)
# No arithmetic: each output element is an input element, possibly with another dtype or sharding.
PASSED = words(
    "convert_element_type reduce_precision stop_gradient copy name sharding_constraint reshard pvary "
    "pbroadcast device_put optimization_barrier bitcast_convert_type real imag"
)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A traced model.

    Attributes:
      jaxpr: jaxpr of `apply(variables, video, train=False)`; the video is the last input variable, its
        streams the last ones in alphabetical order.
      endpoints: indices of the endpoints among the outputs, by name, in the order of computation.
      variables: shapes of the model's variables.
    """

    jaxpr: Jaxpr
    endpoints: dict[str, int]
    variables: dict[str, Any]

    def shape(self, endpoint: str) -> tuple[int, ...]:
        """Returns the shape of an endpoint with the batch axis."""
        return self.jaxpr.outvars[self.endpoints[endpoint]].aval.shape


def trace(model: nn.Module, input_shape: InputShape, batch: int = 1) -> Graph:
    """Traces `model` on a batch of inputs of `input_shape`, (T, H, W, C), (H, W, C), or a dict of streams."""
    variables = abstract_variables(model, input_shape)
    video = dummy_input(input_shape, batch)
    jaxpr, out = make_jaxpr(lambda v, x: model.apply(v, x, train=False), variables, video)
    logits, endpoints = out
    outputs = jaxpr.jaxpr.outvars
    made = {v: i for i, eqn in enumerate(jaxpr.jaxpr.eqns) for v in eqn.outvars}
    position = {name: len(jax.tree.leaves(logits)) + i for i, name in enumerate(flat(endpoints))}
    ordered = sorted(position, key=lambda name: made.get(outputs[position[name]], -1))
    return Graph(jaxpr.jaxpr, {name: position[name] for name in ordered}, variables)


def flat(endpoints: dict[str, Any]) -> dict[str, Any]:
    """Flattens endpoints to a dict by name; nested names are joined by "/"."""
    leaves = jax.tree_util.tree_leaves_with_path(endpoints)
    return {"/".join(str(k.key) for k in path): x for path, x in leaves}


def make_jaxpr(fn: Callable, *args: Any) -> tuple[ClosedJaxpr, Any]:
    """Returns the jaxpr of `fn` and the shapes of its output, with reference lowerings.

    The CPU lowering of `vidjax.layers.conv` traces a 3D convolution as several operations, and that of
    `vidjax.layers.attention` loops over heads.
    """
    with lowering_platform("reference"):
        return jax.make_jaxpr(fn, return_shape=True)(*args)


def subjaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """Yields the jaxprs in the parameters of an equation: of jit, remat, custom derivatives and branches."""
    for value in eqn.params.values():
        for x in value if isinstance(value, tuple | list) else (value,):
            if isinstance(x, ClosedJaxpr):
                yield x.jaxpr
            elif isinstance(x, Jaxpr):
                yield x
