"""Multiply-add counts from the jaxpr; nothing is computed or allocated.

Convention: one MAC is one multiply-add of a convolution, a matrix product or attention; times two gives
FLOPs. Every published "GFLOPs" of video models that could be recomputed is this number. A convolution costs
output elements x window x Cin / groups, so padding counts, as in fvcore and torchvision. Elementwise work
(normalization, activations, softmax, pooling) is counted separately.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
from jax.extend.core import Jaxpr, JaxprEqn

from vidjax.analysis import graph
from vidjax.registry import InputShape

# Data movement, sorting, communication and creation, which are not counted.
_MOVED = graph.PASSED | graph.words(
    "reshape transpose broadcast_in_dim slice squeeze pad concatenate stack unstack split tile rev gather "
    "dynamic_slice dynamic_update_slice scatter sort top_k iota empty create_token axis_index psum pmax pmin "
    "psum_invariant all_gather all_to_all ppermute random_bits random_seed random_wrap random_unwrap "
    "random_fold_in random_split random_clone threefry2x32 rng_bit_generator rng_uniform"
)
_CLASSES = {
    "arithmetic": graph.ARITHMETIC,
    "transcendental": graph.TRANSCENDENTAL,
    "comparison": graph.COMPARISON,
}


@dataclasses.dataclass
class Cost:
    """The cost of a computation.

    Attributes:
      scopes: multiply-adds by module path, such as ("trunk", "stage1_block0", "conv1"), in the order of
        computation; modules with only elementwise work have 0.
      elementwise: other work: number of output elements of "arithmetic", "transcendental" and "comparison"
        operations, and elements read by "reduction" (sums, maxima, pooling windows).
      loops: number of loops of unknown length; each counts as one iteration.
      uncounted: number of operations without a rule, by name.
    """

    scopes: Counter[tuple[str, ...]] = dataclasses.field(default_factory=Counter)
    elementwise: Counter[str] = dataclasses.field(default_factory=Counter)
    loops: int = 0
    uncounted: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def macs(self) -> int:
        """Total multiply-adds."""
        return sum(self.scopes.values())

    def by_module(self, depth: int = 1) -> dict[str, int]:
        """Returns multiply-adds per module down to `depth` names, in the order of computation.

        Those outside any submodule are under "(model)".
        """
        counts: Counter[str] = Counter()
        for path, n in self.scopes.items():
            counts["/".join(path[:depth]) or "(model)"] += n
        return dict(counts)

    def add(self, other: "Cost", times: int = 1) -> None:
        """Adds `times` times the cost `other`."""
        for mine, theirs in ((self.scopes, other.scopes), (self.elementwise, other.elementwise)):
            for key, n in theirs.items():
                mine[key] += n * times
        self.loops += other.loops
        self.uncounted += other.uncounted


def model_cost(model: nn.Module, input_shape: InputShape, batch: int = 1) -> Cost:
    """Returns the cost of `apply(train=False)` on `batch` inputs of shape (T, H, W, C) or (H, W, C)."""
    return jaxpr_cost(graph.trace(model, input_shape, batch).jaxpr)


def function_cost(fn: Callable, *args: Any) -> Cost:
    """Returns the cost of `fn(*args)`; the arguments are arrays or `jax.ShapeDtypeStruct`s."""
    return jaxpr_cost(graph.make_jaxpr(fn, *args)[0].jaxpr)


def jaxpr_cost(jaxpr: Jaxpr) -> Cost:
    """Returns the cost of a jaxpr.

    A scan costs its length times its body, a `while` one iteration (see `Cost.loops`), a `cond` its most
    expensive branch, and a shard_map the work of all shards.
    """
    return _cost(jaxpr, ())


def _cost(jaxpr: Jaxpr, outer: tuple[str, ...]) -> Cost:
    total = Cost()
    for eqn in jaxpr.eqns:
        name, stack = eqn.primitive.name, outer + _names(eqn)
        path = _modules(stack)
        if name == "dot_general":
            total.scopes[path] += _dot(eqn)
        elif name == "conv_general_dilated":
            total.scopes[path] += _conv(eqn)
        elif name.startswith("reduce_window"):
            window = math.prod(eqn.params["window_dimensions"])
            total.elementwise["reduction"] += window * eqn.outvars[0].aval.size
        elif name in _MOVED:
            pass
        elif name.startswith(("reduce_", "arg", "cum")) or name == "reduce":
            total.elementwise["reduction"] += eqn.invars[0].aval.size
        elif kind := next((k for k, names in _CLASSES.items() if name in names), None):
            total.scopes[path] += 0
            total.elementwise[kind] += eqn.outvars[0].aval.size
        elif name.startswith(("scatter", "select_and")):
            total.elementwise["arithmetic"] += eqn.invars[-1].aval.size
        elif bodies := [_cost(sub, stack) for sub in graph.subjaxprs(eqn)]:
            if name == "cond":
                bodies = [max(bodies, key=lambda c: c.macs)]
            for body in bodies:
                total.add(body, _iterations(eqn))
            total.loops += name == "while"
        else:
            total.uncounted[name] += 1
    return total


def _iterations(eqn: JaxprEqn) -> int:
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":
        return math.prod(eqn.params["mesh"].shape[axis] for axis in eqn.params["newly_manual_axes"])
    return 1


def _dot(eqn: JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return eqn.outvars[0].aval.size * math.prod(lhs[axis] for axis in contracted)


def _conv(eqn: JaxprEqn) -> int:
    lhs, rhs, out = eqn.invars[0].aval.shape, eqn.invars[1].aval, eqn.outvars[0].aval.shape
    numbers = eqn.params["dimension_numbers"]
    places = out[numbers.out_spec[0]]
    for a, b, dilation in zip(numbers.lhs_spec[2:], numbers.out_spec[2:], eqn.params["lhs_dilation"]):
        # A transposed convolution is counted by its inputs: the zeros between them cost nothing.
        places *= lhs[a] if dilation > 1 else out[b]
    return places * rhs.size


def _names(eqn: JaxprEqn) -> tuple[str, ...]:
    """Returns the name stack of an equation without transformations such as vmap."""
    stack: Sequence[Any] = eqn.source_info.name_stack.stack
    return tuple(s.name for s in stack if type(s).__name__ == "Scope")


def _modules(stack: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the module path of a name stack: ("Net", "Net.classify", "head") -> ("head",).

    Linen also names each method other than __call__, and the outermost module by its class.
    """
    path: list[str] = []
    for name in stack:
        module, _, method = name.partition(".")
        if not (method and path and path[-1] == module):
            path.append(module)
    return tuple(path[1:])
