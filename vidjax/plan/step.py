"""Compiles the training step of a config for a slice, and reads what it needs."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from vidjax.analysis.chips import Chip
from vidjax.config import ConfigDict
from vidjax.data import streams
from vidjax.data.clips import Clip
from vidjax.data.datasets import Source, card, load_source
from vidjax.data.geometry import Geometry
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget, MultiLabelTarget, SegmentsTarget
from vidjax.errors import UserError
from vidjax.layers.lowering import lowering_platform
from vidjax.plan.collectives import Collective, collectives
from vidjax.tasks import task_class
from vidjax.train.experiment import Experiment, build
from vidjax.train.telemetry import step_flops

_QUICK = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
# A target of a video that is not there, for the shapes of a batch.
_BLANK = {
    type(None): None,
    ClassTarget: ClassTarget(0),
    MultiLabelTarget: MultiLabelTarget((0,)),
    SegmentsTarget: SegmentsTarget((), 1.0),
}


@dataclasses.dataclass(frozen=True)
class Stand:
    """A `Source` in the place of a dataset that is not on this machine."""

    class_names: tuple[str, ...]
    count: int
    target: type | None
    directional: bool = False
    mirror: None = None
    fingerprint: str = ""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Record:
        return Record(b"", None if self.target is None else _BLANK[self.target], "none")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one training step needs.

    Attributes:
      model, slice: what is trained, and where.
      devices: number of them; mesh: how many along each axis.
      batch: clips per step, and accumulation steps.
      remat: the remat policy, None if the model has none.
      state: bytes per device of parameters, optimizer state and batch.
      temporary: bytes per device of activations, gradients and buffers, at the peak.
      memory: bytes that a device has; None if it is not known.
      flops: operations per device and step.
      traffic: bytes per device and step to and from its memory, at least: those of a loop's body count once.
      communication: the collectives.
      seconds: lower bounds of the step by operations, memory and communication, from published rates.
      compilation: seconds.
      quick: whether the compiler made the least effort, see `compile_step`.
    """

    model: str
    slice: str
    devices: int
    mesh: dict[str, int]
    batch: int
    accumulation: int
    remat: str | None
    state: int
    temporary: int
    memory: int | None
    flops: float
    traffic: float
    communication: tuple[Collective, ...]
    seconds: dict[str, float]
    compilation: float
    quick: bool = False

    @property
    def used(self) -> int:
        """Bytes per device at the peak."""
        return self.state + self.temporary

    @property
    def fits(self) -> bool:
        return self.memory is None or self.used <= self.memory

    @property
    def bound(self) -> float:
        """Lower bound of the seconds per step; communication may overlap with the rest. 0 if not known."""
        return max(self.seconds.values(), default=0.0)

    def to_json(self) -> dict[str, Any]:
        extra = {"used": self.used, "fits": self.fits, "bound": self.bound}
        return dataclasses.asdict(self) | extra


def compile_step(
    config: ConfigDict, name: str, devices: list[Any], chip: Chip | None, quick: bool = False
) -> Plan:
    """Compiles the training step of a config.

    Args:
      config: a resolved config; its mesh must fit the devices.
      name: of the slice.
      devices: what it consists of.
      chip: published rates of each device.
      quick: let the compiler make the least effort to save time and memory of the step, whose
        memory and traffic then differ a little from those of the step that training runs; communication
        with fsdp may be several times smaller.

    Raises:
      UserError: the config does not fit the devices, or runs under pmap.
    """
    if config.parallel.mode == "pmap":
        raise UserError("a plan is made for parallel.mode=jit")
    exp = build(config, sources=stand_ins(config), devices=devices)
    start = time.perf_counter()
    with lowering_platform(devices[0].platform):
        batch = abstract_batch(exp)
        compiled = exp.runner.step.lower(exp.abstract_state(), batch).compile(_QUICK if quick else None)
    seconds = time.perf_counter() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    mesh = dict(exp.mesh.shape)
    found = tuple(collectives(compiled.as_text(), mesh))
    # XLA counts the body of a loop once, so of models that scan over their blocks ours is the larger count.
    flops = max(float(cost.get("flops", 0)), step_flops(exp, batch) / len(devices))
    traffic = float(cost.get("bytes accessed", 0))
    bounds = {}
    if chip:
        bounds = {
            "operations": flops / chip.flops,
            "memory": traffic / chip.bandwidth,
            "communication": sum(c.wire for c in found) / chip.links,
        }
    return Plan(
        model=config.model.name,
        slice=name,
        devices=len(devices),
        mesh=mesh,
        batch=config.batch,
        accumulation=config.parallel.accumulation,
        remat=config.model.options.get("remat"),
        state=memory.argument_size_in_bytes,
        temporary=memory.temp_size_in_bytes
        + max(0, memory.output_size_in_bytes - memory.alias_size_in_bytes)
        + memory.generated_code_size_in_bytes,
        memory=chip and chip.memory,
        flops=flops,
        traffic=traffic,
        communication=found,
        seconds=bounds,
        compilation=seconds,
        quick=quick,
    )


def stand_ins(config: ConfigDict) -> tuple[Source, Source]:
    """Returns sources with the classes of the config's dataset, which need not be on this machine."""
    data, target = config.data, task_class(config.task.name).target
    about = card(data.name)
    if about is None:  # generated, or a folder of the user
        return tuple(
            load_source(data.name, split, target, **data.options)
            for split in (data.train_split, data.eval_split)
        )
    classes = data.options.get("classes", about.classes)
    names = tuple(map(str, range(classes)))
    count = about.splits.get(data.train_split) or 100_000
    return Stand(names, count, target), Stand(names, count, target)


def abstract_batch(exp: Experiment) -> dict[str, Any]:
    """Returns the shapes of a training batch."""
    config, task = exp.config, exp.task
    zeros = streams.zeros(config.data, task.reading["streams"])
    size = config.data.size
    steps = next(len(x) for x in zeros.values())
    clip = Clip(zeros, np.linspace(0.0, 1.0, steps), Geometry.identity(size, size))
    targets = task.example(exp.train_source[0], clip, np.random.default_rng(0), True)
    sharding = exp.runner.batch_sharding

    def whole(x: Any) -> jax.ShapeDtypeStruct:
        x = np.asarray(x)
        return jax.ShapeDtypeStruct((config.batch, *x.shape), x.dtype, sharding=sharding)

    return {"inputs": jax.tree.map(whole, zeros), "targets": jax.tree.map(whole, dict(targets))}


def text(plan: Plan) -> str:
    """Describes a plan on a few lines."""
    gib = lambda n: f"{n / 2**30:.2f} GiB"  # noqa: E731
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan.mesh.items() if n > 1) or "one device"
    share = plan.batch / (plan.mesh["data"] * plan.mesh["fsdp"] * plan.accumulation)
    lines = [
        f"{plan.model} on {plan.slice}: {plan.devices} devices ({mesh}), batch {plan.batch} = "
        f"{share:g} clips at a time on each"
        + (f" x {plan.accumulation} accumulation steps" if plan.accumulation > 1 else "")
        + (f", remat {plan.remat}" if plan.remat else ""),
        f"memory per device   {gib(plan.used)}: {gib(plan.state)} state and batch, "
        f"{gib(plan.temporary)} at the peak of a step",
    ]
    if plan.memory:
        spare = plan.memory - plan.used
        lines[-1] += f"; {'fits' if spare >= 0 else 'DOES NOT FIT'} {gib(plan.memory)}, by {gib(abs(spare))}"
    lines.append(
        f"per device and step {plan.flops / 1e12:.3g} TFLOP, {plan.traffic / 1e9:.3g} GB of memory traffic"
    )
    for c in plan.communication:
        lines.append(f"{c.kind:19} {c.bytes / 1e6:.4g} MB over {c.axes}, {c.wire / 1e6:.4g} MB sent")
    if plan.seconds:
        limit = max(plan.seconds, key=lambda k: plan.seconds[k])
        shown = ", ".join(f"{k} {1e3 * s:.3g} ms" for k, s in plan.seconds.items())
        rate = plan.batch / plan.bound
        lines.append(
            f"step at least        {1e3 * plan.bound:.3g} ms by {limit} ({shown}): at most {rate:.0f} clips/s"
        )
    effort = " with the least effort" if plan.quick else ""
    lines.append(f"compiled in          {plan.compilation:.0f} s{effort}")
    return "\n".join(lines)


def meshes(count: int) -> list[dict[str, int]]:
    """Returns the meshes that a search tries: `count` devices as data x fsdp, with fsdp a power of two."""
    sizes = [2**power for power in range(count.bit_length()) if count % 2**power == 0]
    return [{"data": count // fsdp, "fsdp": fsdp, "tensor": 1, "context": 1} for fsdp in sizes]
