"""The device mesh, and sharding of parameters by rules that map paths to partition specs.

Axes of the mesh: "data" shards the batch; "fsdp" shards the batch, and parameters that are gathered when they
are used (Rajbhandari et al., arXiv:1910.02054); "tensor" shards heads and hidden units (Shoeybi et al.,
arXiv:1909.08053); "context" shards the tokens of transformers between attentions, whose keys and values are
gathered. Any mesh computes the same step; XLA inserts the communication.
"""

import difflib
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidjax.errors import UserError

AXES = ("data", "fsdp", "tensor", "context")
SAMPLES = ("data", "fsdp")  # the axes over which batches are sharded
BATCH = P(SAMPLES)


def create_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    context: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Creates a mesh over `devices`, by default all. One size may be -1, for all remaining devices.

    The devices of an axis are neighbors where the machine has such. Several TPU slices, which are joined by
    the data center network alone, divide the axis "data".

    Raises:
      UserError: the product of the sizes is not the number of devices, or "data" not divisible by the slices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [data, fsdp, tensor, context]
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) == 1 and known > 0 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices) or min(sizes) < 1:
        raise UserError(
            f"parallel.mesh of data={data}, fsdp={fsdp}, tensor={tensor}, context={context} does not fit "
            f"{len(devices)} devices: the sizes must multiply to that number, and one of them may be -1"
        )
    slices = len({getattr(d, "slice_index", 0) for d in devices if d.platform == "tpu"})
    if slices > 1 and sizes[0] % slices:
        raise UserError(f"parallel.mesh.data={sizes[0]} does not divide over {slices} slices")
    # Without `allow_split_physical_axes`, an axis has to be a product of whole dimensions of the torus.
    if slices > 1:
        within, between = (sizes[0] // slices, *sizes[1:]), (slices, 1, 1, 1)
        placed = mesh_utils.create_hybrid_device_mesh(
            within, between, devices, allow_split_physical_axes=True
        )
    else:
        placed = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def axis_size(*axes: str) -> int:
    """Returns the number of devices along some axes of the mesh that is traced with, see `in_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape.get(axis, 1) for axis in axes)


def constrain(x: jax.Array, *spec: Any) -> jax.Array:
    """Shards an array over the mesh that is traced with; does nothing where its axes have one device."""
    used = [a for s in spec if s for a in (s if isinstance(s, tuple) else (s,))]
    return jax.lax.with_sharding_constraint(x, P(*spec)) if axis_size(*used) > 1 else x


def in_mesh(mesh: Mesh, fn: Callable) -> Callable:
    """Wraps `fn` to be traced with `mesh` as context, as required by kernels with custom partitioning."""

    @functools.wraps(fn)
    def wrapped(*args: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return fn(*args)

    return wrapped


def mesh_hosts(mesh: Mesh) -> int:
    """Returns the number of processes with devices in `mesh`: all of them, or one under `pmap`."""
    return len({d.process_index for d in mesh.devices.flat})


def batch_multiple(mesh: Mesh, hosts: int) -> int:
    """Returns the number that must divide a global batch shared by `hosts` processes."""
    devices = mesh.shape["data"] * mesh.shape["fsdp"] * hosts // mesh_hosts(mesh)
    return math.lcm(devices, hosts)


def path_name(path: tuple) -> str:
    """Formats a pytree path as "stage1_block0/conv1/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


# Placement of parameters where a family has no table of its own.
FSDP = ((".*", "fsdp"),)


def state_shardings(state: Any, mesh: Mesh, rules: Sequence[tuple[str, Any]], strict: bool = True) -> Any:
    """Returns the shardings of a tree of arrays or abstract arrays.

    Args:
      state: a tree whose paths end with those of the parameters, so that optimizer moments are sharded like
        their parameters.
      mesh: the mesh, see `create_mesh`.
      rules: (regex, spec) pairs. The first regex that matches a path applies; other arrays are replicated. A
        spec has a mesh axis, a tuple of axes, or None for each of the last dimensions; or it is "fsdp", which
        shards the largest divisible dimension over that axis.
      strict: whether a regex that matches nothing and a dimension that is not divisible are errors. Tables of
        families are not: such a dimension is not sharded.

    Raises:
      UserError: a regex that is invalid or matches no path, or a spec with an unknown axis, too many
        dimensions, or a dimension that is not divisible.
    """
    for pattern, _ in rules:
        try:
            re.compile(pattern)
        except re.error as e:
            raise UserError(f"parallel.rules: '{pattern}' is not a regular expression: {e}") from None

    def place(path, x):
        name = path_name(path)
        for pattern, spec in rules:
            # Scalars, such as the step counts in the optimizer state, cannot be sharded.
            if x.ndim and re.search(pattern, name):
                return NamedSharding(mesh, _spec(name, x.shape, spec, mesh, strict))
        return NamedSharding(mesh, P())

    placed = jax.tree_util.tree_map_with_path(place, state)
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    for pattern, _ in rules if strict else ():
        if not any(re.search(pattern, p) for p in paths):
            shown = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            raise UserError(
                f"parallel.rules: '{pattern}' matches no path; the nearest are {', '.join(shown)}"
            )
    return placed


def _spec(name: str, shape: tuple[int, ...], spec: Any, mesh: Mesh, strict: bool) -> P:
    if spec == "fsdp":
        n = mesh.shape["fsdp"]
        fits = [i for i, size in enumerate(shape) if size % n == 0]
        if not fits or n == 1:
            return P()
        cut = max(fits, key=lambda i: shape[i])
        return P(*("fsdp" if i == cut else None for i in range(len(shape))))
    if not isinstance(spec, list | tuple):
        raise UserError(
            f"parallel.rules: the spec of '{name}' must be 'fsdp' or a list of axes, not {spec!r}"
        )
    spec = tuple(tuple(s) if isinstance(s, list) else s for s in spec)
    axes = [a for s in spec for a in (s if isinstance(s, tuple) else (s,)) if a is not None]
    if unknown := set(axes) - set(AXES):
        raise UserError(f"parallel.rules: {sorted(unknown)} for '{name}' is not among the axes {AXES}")
    if len(spec) > len(shape):
        raise UserError(f"parallel.rules: {len(spec)} dimensions for '{name}', which has shape {shape}")
    spec = (None,) * (len(shape) - len(spec)) + spec
    kept = []
    for size, s in zip(shape, spec, strict=True):
        n = math.prod(mesh.shape[a] for a in (s if isinstance(s, tuple) else (s,)) if a is not None)
        if size % n and strict:
            raise UserError(f"parallel.rules: '{name}' of shape {shape} is not divisible by {n} along {s}")
        kept.append(None if size % n else s)
    return P(*kept)


def check_batch(batch: int, mesh: Mesh, accumulation: int, hosts: int) -> None:
    """Raises `UserError` if a batch is not divisible over devices, accumulation steps and hosts."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"] * accumulation
    if batch % ways or batch % hosts:
        good = math.lcm(ways, hosts)
        raise UserError(
            f"batch of {batch} does not divide over {mesh.shape['data'] * mesh.shape['fsdp']} devices x "
            f"{accumulation} accumulation steps on {hosts} hosts: use a multiple of {good}"
        )


class JitRunner:
    """Runs a step with `jit` over a mesh. The state is donated and keeps its sharding.

    Attributes:
      state_shardings: shardings of the state.
      batch_sharding: sharding of a batch.
    """

    def __init__(self, step: Callable, mesh: Mesh, shardings: Any):
        self.state_shardings = shardings
        self.batch_sharding = NamedSharding(mesh, BATCH)
        self.step = jax.jit(
            in_mesh(mesh, step),
            in_shardings=(shardings, self.batch_sharding),
            out_shardings=(shardings, NamedSharding(mesh, P())),
            donate_argnums=0,
        )

    def place(self, state: Any) -> Any:
        """Converts a state with `state_shardings` to the input of `step`."""
        return state

    def read(self, state: Any) -> Any:
        """Converts the output of `step` to a state with `state_shardings`."""
        return state


class PmapRunner:
    """Runs a step with `pmap`: the state is replicated and the batch is sharded over devices.

    The step must be made with `axis_name=PmapRunner.AXIS`. Has the same methods as `JitRunner`.
    """

    AXIS = "devices"

    def __init__(self, step: Callable, mesh: Mesh, state: Any):
        self.state_shardings = jax.tree.map(lambda _: NamedSharding(mesh, P()), state)
        self.batch_sharding = NamedSharding(mesh, BATCH)
        self._devices = devices = mesh.devices.ravel()
        self._mapped = NamedSharding(Mesh(devices, (self.AXIS,), axis_types=(AxisType.Auto,)), P(self.AXIS))
        self._step = jax.pmap(step, axis_name=self.AXIS, donate_argnums=0)

    def step(self, copies: Any, batch: Any) -> tuple[Any, Any]:
        parts = jax.tree.map(lambda x: x.reshape(len(self._devices), -1, *x.shape[1:]), batch)
        copies, metrics = self._step(copies, jax.device_put(parts, self._mapped))
        return copies, jax.tree.map(_first, metrics)

    def place(self, state: Any) -> Any:
        copies = jax.tree.map(lambda x: jnp.stack([x] * len(self._devices)), state)
        return jax.device_put(copies, self._mapped)

    def read(self, copies: Any) -> Any:
        return jax.device_put(jax.tree.map(_first, copies), self.state_shardings)


def _first(copies: jax.Array) -> jax.Array:
    """Returns the copy on the first device of this host, without communication."""
    return copies.addressable_shards[0].data[0]
