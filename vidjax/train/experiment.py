"""Builds the parts of an experiment from a config: data, model, task, optimizer and mesh."""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from absl import logging
from etils import epath
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vidjax import files, registry
from vidjax.analysis.clips import check_endpoints, check_patches, refusing
from vidjax.analysis.params import abstract_variables
from vidjax.checkpoint_io import choice_text, find_checkpoint
from vidjax.data import streams
from vidjax.data.datasets import Source, load_source
from vidjax.data.datasets.features import FeatureSource, check_origin
from vidjax.data.order import order_of
from vidjax.data.pipeline import BatchIterator, train_batches
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.evaluation import Eval, create_evals
from vidjax.inference import Engine
from vidjax.layers.preprocess import model_inputs
from vidjax.models import create_model
from vidjax.sharding import (
    JitRunner,
    PmapRunner,
    check_batch,
    create_mesh,
    state_shardings,
)
from vidjax.tasks import Task, create_task, task_class
from vidjax.train.optim import create_optimizer, create_schedule, frozen_params, groups_text, peak_lr
from vidjax.train.state import State, init_state
from vidjax.train.step import make_train_step


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts of an experiment.

    Attributes:
      config: the resolved config.
      model: the linen module.
      task: what is learned, see `vidjax.tasks`.
      evals: the evaluations by name, see `vidjax.evaluation`.
      train_source: the training videos.
      mesh: the device mesh.
      steps: total number of updates.
      steps_per_epoch: number of updates per epoch.
      schedule: maps a step to its learning rate.
      init: returns a newly initialized State; traceable.
      runner: compiles and runs the training step.
      make_runner: makes a runner for another step from a function (axis_name=None) -> step.
      gradient_options: options of `vidjax.train.step.make_gradients` in the training step.
      groups: one-line summary of the parameter groups with parameter counts.
      sources: the videos of the splits that were read, by name.
      cache: what evaluations keep from one to the next, such as engines; see `cached`.
    """

    config: ConfigDict
    model: nn.Module
    task: Task
    evals: dict[str, Eval]
    train_source: Source
    mesh: Mesh
    steps: int
    steps_per_epoch: float
    schedule: optax.Schedule
    init: Callable[[], State]
    runner: JitRunner | PmapRunner
    make_runner: Callable[[Callable], JitRunner | PmapRunner]
    gradient_options: dict[str, Any]
    groups: str
    sources: dict[str, Source]
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def eval_source(self) -> Source:
        """The videos of the split `data.eval_split`."""
        return self.source(None)

    def source(self, split: str | None) -> Source:
        """Returns the videos of a split; None is `data.eval_split`.

        Raises:
          UserError: the split does not exist, or its classes differ from those of the training videos.
        """
        data = self.config.data
        split = split or data.eval_split
        if split not in self.sources:
            source = load_source(data.name, split, self.task.target, **data.options)
            check_sources(self.config, self.train_source, source, split)
            self.sources[split] = source
        return self.sources[split]

    def engine(self, name: str, apply: Callable[[Any, dict], Any]) -> Engine:
        """Returns the engine that runs a function over the mesh, compiled once for each `name`."""
        return self.cached(name, lambda: Engine(self.mesh, apply))

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns `make()`, which is called only once for each `key`."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def batches(self, seed: int, batch: int, report_dir: epath.PathLike | None = None) -> BatchIterator:
        """Returns this host's share of the training batches."""
        hosts = dict(host=jax.process_index(), hosts=jax.process_count(), report_dir=report_dir)
        return train_batches(self.train_source, self.config.data, batch, seed, **hosts, **self.task.reading)

    def check_clip(self, clip: Any, prefix: str) -> None:
        """Checks that the model takes a clip of other shapes than the training clips.

        Args:
          clip: shapes of the model's argument, with a batch axis.
          prefix: of `frames` and `size` in the message.

        Raises:
          UserError: it does not.
        """
        name = self.config.model.name
        check_patches(name, self.model, _shape(clip), prefix)
        state = jax.eval_shape(self.init)
        variables = {"params": state.params, **state.model_state}
        with refusing(f"{prefix}size or frames: {name} does not take {registry.shape_text(_shape(clip))}"):
            jax.eval_shape(self.model.apply, variables, clip)

    def abstract_state(self) -> State:
        """Returns the shapes and shardings of the state, without allocating it."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            jax.eval_shape(self.init),
            self.runner.state_shardings,
        )


def build(
    config: ConfigDict,
    sources: tuple[Source, Source] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Experiment:
    """Builds an experiment from a resolved config.

    Args:
      config: a resolved config.
      sources: the training and evaluation videos; None opens those of the config.
      devices: of the mesh; None takes all, or under pmap those of this host.

    Raises:
      UserError: the config refers to something that does not exist, or its values are incompatible.
    """
    train_source, eval_source = sources or load_sources(config)
    model, task = create_parts(config, train_source.class_names)
    clip = task.inputs.abstract(streams.zeros(config.data, task.inputs.streams))

    parallel = config.parallel
    if devices is None:
        devices = jax.local_devices() if parallel.mode == "pmap" else jax.devices()
    mesh = create_mesh(**parallel.mesh, devices=devices)
    check_batch(config.batch, mesh, parallel.accumulation, jax.process_count())
    _check_bn_groups(config, model, mesh)
    check_patches(config.model.name, model, _shape(clip), "data.")
    steps_per_epoch = order_of(train_source).epoch * config.data.repeats / config.batch
    steps = config.steps or max(1, round(config.epochs * steps_per_epoch))
    schedule = create_schedule(config, steps, steps_per_epoch)
    frozen = _frozen(config, model, clip)
    tx = create_optimizer(config, schedule, frozen)
    gradient_options = dict(
        accumulation=parallel.accumulation,
        freeze_bn=config.model.freeze_bn,
        frozen=lambda params: frozen_params(config, params, frozen),
    )
    make_step = functools.partial(
        make_train_step,
        task.loss,
        model,
        tx,
        ema=config.optimizer.ema,
        nonfinite=config.optimizer.nonfinite,
        **gradient_options,
    )
    init = functools.partial(init_state, model, tx, config.seed, clip, config.optimizer.ema is not None)
    abstract = _abstract(config, model, task, clip, init)

    def make_runner(make: Callable) -> JitRunner | PmapRunner:
        if parallel.mode == "pmap":
            return PmapRunner(make(axis_name=PmapRunner.AXIS), mesh, abstract)
        rules = registry.spec(config.model.name).rules if parallel.rules is None else parallel.rules
        return JitRunner(make(), mesh, state_shardings(abstract, mesh, rules, parallel.rules is not None))

    return Experiment(
        config=config,
        model=model,
        task=task,
        evals=create_evals(config.evals),
        train_source=train_source,
        sources={config.data.eval_split: eval_source},
        mesh=mesh,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        schedule=schedule,
        init=init,
        runner=make_runner(make_step),
        make_runner=make_runner,
        gradient_options=gradient_options,
        groups=groups_text(config, abstract.params, frozen),
    )


def batch_text(exp: Experiment) -> str:
    """Describes the effective batch size and its factors in one line."""
    c, repeats = exp.config, exp.config.data.repeats
    devices = exp.mesh.shape["data"] * exp.mesh.shape["fsdp"]
    if c.parallel.mode == "pmap":  # the mesh spans one host only
        devices *= jax.process_count()
    clips = c.batch // (devices * c.parallel.accumulation)
    share = f"{clips} clips"
    if repeats > 1:  # the clips of a video may be split over two devices
        share = f"{clips / repeats:g} videos x {repeats} clips of each"
    return (
        f"batch {c.batch} clips = {devices} devices x {share} x {c.parallel.accumulation} accumulation "
        f"steps; peak learning rate {peak_lr(c):.4g}; {exp.steps} updates, {exp.steps_per_epoch:g} per epoch"
    )


def memory_hint(config: ConfigDict) -> str:
    """Suggests config changes against running out of memory, to append to an error message."""
    hint = f"lower batch ({config.batch}) or raise parallel.accumulation ({config.parallel.accumulation})"
    if "remat" in registry.fields(registry.spec(config.model.name).module):
        now = config.model.options.get("remat", "none")
        hint += f", or set model.options.remat=full (now {now})"
    return f"{hint}; for an evaluation, set evals.NAME.batch"


def _check_bn_groups(config: ConfigDict, model: nn.Module, mesh: Mesh) -> None:
    """Raises `UserError` if the clips of a forward pass are not divisible into the groups of BatchNorm."""
    groups = getattr(model, "bn_groups", 1)
    devices = mesh.size * jax.process_count() if config.parallel.mode == "pmap" else 1
    clips = config.batch // (devices * config.parallel.accumulation)
    if clips % groups:
        raise UserError(
            f"model.options.bn_groups={groups} does not divide the {clips} clips of a forward pass (batch "
            f"{config.batch} / {config.parallel.accumulation} accumulation steps): use a divisor of {clips}"
        )


def _frozen(config: ConfigDict, model: nn.Module, clip: Any) -> str | None:
    """Returns a regex that matches the paths of frozen parameters, or None."""
    frozen = ["^trunk/"] if getattr(model, "frozen", False) else []
    if config.model.freeze_bn:
        stats = flatten_dict(abstract_variables(model, _shape(clip)).get("batch_stats", {}), sep="/")
        frozen += sorted({f"^{re.escape(path.rpartition('/')[0])}/" for path in stats})
    return "|".join(frozen) or None


def load_sources(config: ConfigDict) -> tuple[Source, Source]:
    """Returns the training and evaluation videos. Raises `UserError` if they are incompatible."""
    data, target = config.data, task_class(config.task.name).target
    train, test = (
        load_source(data.name, split, target, **data.options) for split in (data.train_split, data.eval_split)
    )
    takes = registry.model_streams(config.model.name, config.model.options)
    if isinstance(train, FeatureSource) and "features" not in takes:
        raise UserError(
            f"{config.model.name} takes {' and '.join(takes)}, and dataset {data.name} has cached features: "
            "use linear_probe, attentive_probe, or a recurrent model with model.options.trunk=None"
        )
    if "features" in takes and not isinstance(train, FeatureSource):
        raise UserError(f"{config.model.name} takes features: set data.name=features, not {data.name}")
    check_sources(config, train, test, data.eval_split)
    return train, test


def check_sources(config: ConfigDict, train: Source, test: Source, split: str) -> None:
    """Raises `UserError` if the videos of two splits are incompatible."""
    if train.class_names != test.class_names:
        odd = sorted(set(train.class_names) ^ set(test.class_names))
        raise UserError(f"the classes of '{config.data.train_split}' and '{split}' differ: {odd[:5]}")
    if isinstance(train, FeatureSource):
        check_origin(train.origin, test.origin, f"{train.path} and {test.path}")
        for source in (train, test):
            source.check(config.data)
        if train.target is ClassTarget and (
            unseen := sorted({r.target.label for r in test} - {r.target.label for r in train})
        ):
            raise UserError(
                f"{test.path} has videos of '{train.class_names[unseen[0]]}', a class that {train.path} has "
                "none of: cache the features of all training videos"
            )


def create_parts(config: ConfigDict, class_names: Sequence[str]) -> tuple[nn.Module, Task]:
    """Returns the model and the task of a config."""
    name, spec = config.model.name, registry.spec(config.model.name)
    if spec.streams == ("rgb",) and len(spec.input_shape) == 3:
        raise UserError(f"{name} is an image model: use single_frame_{name} or late_fusion_{name} for videos")
    options = config.model.options.to_dict()
    takes = registry.model_streams(name, options)
    inputs = model_inputs(spec, takes, config.data)
    task = create_task(**config.task, inputs=inputs, class_names=class_names, seed=config.seed)
    streams.check(config.data, task.reading["streams"])
    model = create_model(name, task.num_outputs, tiny=config.model.tiny, dtype=config.model.dtype, **options)
    return model, task


def _shape(clip: Any) -> registry.InputShape:
    """Returns the shape of a model's argument without the batch axis."""
    return jax.tree.map(lambda x: x.shape[1:], clip)


def initial_state(exp: Experiment) -> State:
    """Returns a newly initialized state on the mesh, with the weights of `init.path` if it is set."""
    # On a CPU, code for random numbers takes ten times as long to optimize further, without any use.
    options = {"xla_backend_optimization_level": "1"} if jax.default_backend() == "cpu" else None
    state = jax.jit(exp.init, out_shardings=exp.runner.state_shardings, compiler_options=options)()
    init = exp.config.init
    if init.path:
        from vidjax.convert import read_weights  # not at the top: the tables of names take time to build

        model = exp.config.model
        options = dict(tiny=model.tiny, **model.options.to_dict())
        path = init.path
        if files.absolute(path).is_dir():
            path = find_checkpoint(path, init.which)
        weights = read_weights(model.name, path, inflation=init.inflation, **options)
        notes = weights.notes
        if weights.owner == model.name and weights.preprocessing:
            first, inputs = exp.task.inputs.streams[0], exp.task.inputs
            statistics = (x.get(first) for x in (inputs.mean, inputs.std))
            notes += weights.preprocessing.differences(exp.model, *statistics)
        for note in notes:
            logging.warning("%s: %s", init.path, note)
        fresh = {"params": state.params, **state.model_state}
        merged = weights.merge_into(fresh, init.skip)
        if jax.process_index() == 0:
            chosen = choice_text(path, init.which, weights.meta)
            print(f"{chosen}: {weights.report(fresh, init.skip)}", file=sys.stderr)
        params = merged.pop("params")
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        state = state.replace(params=params, model_state=merged, ema=ema)
    return state


def _abstract(
    config: ConfigDict, model: nn.Module, task: Task, clip: Any, init: Callable[[], State]
) -> State:
    options = ", ".join(f"{k}={v}" for k, v in config.model.options.items())
    refusal = f"{config.model.name}({options}) does not take clips of {registry.shape_text(_shape(clip))}"
    with refusing(refusal):
        abstract = jax.eval_shape(init)
        variables = {"params": abstract.params, **abstract.model_state}
        _, endpoints = jax.eval_shape(model.apply, variables, clip)
    check_endpoints(refusal, {name: x.shape for name, x in endpoints.items()})
    task.check(config.model.name, model, endpoints)
    return abstract
