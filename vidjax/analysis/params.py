"""Parameter counts from shapes; nothing is computed or allocated."""

import math
from collections import Counter
from typing import Any

import flax.linen as nn
import jax

from vidjax.layers.lowering import lowering_platform
from vidjax.registry import InputShape, dummy_input


def abstract_variables(model: nn.Module, input_shape: InputShape) -> dict[str, Any]:
    """Returns the shapes of the variables of `model` for one input of `input_shape`, without batch axis."""
    with lowering_platform("reference"):  # the shapes are the same, the trace is shorter
        return jax.eval_shape(model.init, jax.random.PRNGKey(0), dummy_input(input_shape))


def count_params(params: Any) -> int:
    """Returns the number of parameters in a tree of arrays or shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def params_by_module(params: dict[str, Any], depth: int = 1) -> dict[str, int]:
    """Counts parameters per module, down to `depth` names ("trunk/stem_conv"), sorted by name."""
    counts: Counter[str] = Counter()
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        names = [k.key for k in path]
        counts["/".join(names[:-1][:depth]) or names[0]] += math.prod(x.shape)
    return dict(counts)
