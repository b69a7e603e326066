"""Conversion between separate (block0, block1, ...) and stacked (blocks) parameters of equal blocks."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_NUMBERED = re.compile(r"(.*block)(\d+)")


def unstack_blocks(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Splits every "...blocks" of nested dicts of arrays, or of shapes, into "...block0", "...block1", ..."""
    out: dict[str, Any] = {}
    for name, x in tree.items():
        if name.endswith("blocks") and isinstance(x, Mapping):
            for i in range(jax.tree.leaves(x)[0].shape[0]):
                out[f"{name[:-1]}{i}"] = jax.tree.map(lambda leaf, i=i: _layer(leaf, i), x)
        else:
            out[name] = unstack_blocks(x) if isinstance(x, Mapping) else x
    return out


def stack_blocks(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Stacks "...block0", "...block1", ... at any depth as "...blocks", inverting `unstack_blocks`.

    Raises:
      ValueError: the blocks of a name differ in structure or are not numbered from 0.
    """
    out: dict[str, Any] = {}
    groups: dict[str, dict[int, Any]] = {}
    for name, x in tree.items():
        if found := _NUMBERED.fullmatch(name):
            groups.setdefault(found[1] + "s", {})[int(found[2])] = x
        else:
            out[name] = stack_blocks(x) if isinstance(x, Mapping) else x
    for name, blocks in groups.items():
        if sorted(blocks) != list(range(len(blocks))):
            raise ValueError(f"{name} are not numbered from 0: {sorted(blocks)}")
        out[name] = jax.tree.map(lambda *xs: _stack(xs), *(blocks[i] for i in range(len(blocks))))
    return out


def laid_out_as(model: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `tree` with blocks stacked or separate as in `model`, by name; other entries are unchanged."""
    out = dict(tree)
    for name, x in model.items():
        if not isinstance(x, Mapping):
            continue
        if name.endswith("blocks") and name not in tree:
            mine = {k: out.pop(k) for k in tree if (m := _NUMBERED.fullmatch(k)) and m[1] + "s" == name}
            if mine:
                out |= stack_blocks(mine)
        elif (m := _NUMBERED.fullmatch(name)) and name not in out and m[1] + "s" in out:
            stacked = m[1] + "s"
            out |= unstack_blocks({stacked: out.pop(stacked)})
        elif isinstance(tree.get(name), Mapping):
            out[name] = laid_out_as(x, tree[name])
    return out


def _layer(x, i):
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x[i]


def _stack(xs):
    return (np if isinstance(xs[0], np.ndarray) else jnp).stack(xs)
