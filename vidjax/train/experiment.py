"""Builds the parts of an experiment from a config: data, model, objective, optimizer and mesh."""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vidjax import files, registry
from vidjax.analysis.clips import check_endpoints, check_patches, refusing
from vidjax.analysis.params import abstract_variables
from vidjax.checkpoint_io import choice_text, find_checkpoint
from vidjax.convert import read_weights
from vidjax.data.datasets import ListSource, Source, load_source
from vidjax.data.datasets.features import FeatureSource, check_origin
from vidjax.data.pipeline import clip_shape
from vidjax.errors import UserError
from vidjax.inference import Engine
from vidjax.layers.preprocess import normalize, statistics
from vidjax.models import create_model
from vidjax.objectives import create_objective
from vidjax.objectives.mae import draw
from vidjax.sharding import (
    JitRunner,
    PmapRunner,
    check_batch,
    create_mesh,
    state_shardings,
)
from vidjax.train.optim import create_optimizer, create_schedule, frozen_params, groups_text, peak_lr
from vidjax.train.state import State, init_state
from vidjax.train.step import make_train_step


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts of an experiment.

    Attributes:
      config: the resolved config.
      model: the linen module.
      objective: the loss function, see `vidjax.objectives`.
      train_source, eval_source: the videos.
      mesh: the device mesh.
      steps: total number of updates.
      steps_per_epoch: number of updates per epoch.
      schedule: maps a step to its learning rate.
      init: returns a newly initialized State; traceable.
      runner: compiles and runs the training step.
      make_runner: makes a runner for another step from a function (axis_name=None) -> step.
      gradient_options: options of `vidjax.train.step.make_gradients` in the training step.
      groups: one-line summary of the parameter groups with parameter counts.
      engine: runs evaluation on the mesh. Maps `video` uint8 [B, V, T, H, W, C] (or a dict of streams) to
        logits float32 [B, V, K]; for pretraining models, see `vidjax.train.pretraining`.
      compiled: cache of compiled evaluation functions, by name.
    """

    config: ConfigDict
    model: nn.Module
    objective: Callable
    train_source: Source
    eval_source: Source
    mesh: Mesh
    steps: int
    steps_per_epoch: float
    schedule: optax.Schedule
    init: Callable[[], State]
    runner: JitRunner | PmapRunner
    make_runner: Callable[[Callable], JitRunner | PmapRunner]
    gradient_options: dict[str, Any]
    groups: str
    engine: Engine
    compiled: dict[str, Callable] = dataclasses.field(default_factory=dict, repr=False)

    @functools.cached_property
    def probe_sources(self) -> tuple[Source, Source]:
        """The labeled videos of the nearest-neighbor probe of pretraining, and the videos to classify.

        Raises:
          UserError: a class of the latter has no labeled video.
        """
        limit = self.config.evals.probe_videos
        bank, test = (balanced(s, limit) for s in (self.train_source, self.eval_source))
        if unseen := sorted({r.label for r in test} - {r.label for r in bank}):
            names = ", ".join(test.class_names[i] for i in unseen[:5])
            raise UserError(
                f"none of the {len(bank)} training videos of the nearest-neighbor probe is of the classes "
                f"{names}: raise evals.probe_videos, or remove these classes from the evaluation split"
            )
        return bank, test

    def abstract_state(self) -> State:
        """Returns the shapes and shardings of the state, without allocating it."""
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            jax.eval_shape(self.init),
            self.runner.state_shardings,
        )


def build(config: ConfigDict) -> Experiment:
    """Builds an experiment from a resolved config.

    Raises:
      UserError: the config refers to something that does not exist, or its values are incompatible.
    """
    model, objective = build_model(config)
    train_source, eval_source = load_sources(config)
    num_classes = len(train_source.class_names)
    model = model.clone(num_classes=num_classes)

    parallel = config.parallel
    devices = jax.local_devices() if parallel.mode == "pmap" else jax.devices()
    mesh = create_mesh(**parallel.mesh, devices=devices)
    check_batch(config.batch, mesh, parallel.accumulation, jax.process_count())
    _check_bn_groups(config, model, mesh)
    check_patches(config.model.name, model, clip_shape(config.data), "data.")
    steps_per_epoch = len(train_source) * config.data.repeats / config.batch
    steps = config.steps or max(1, round(config.epochs * steps_per_epoch))
    schedule = create_schedule(config, steps, steps_per_epoch)
    frozen = _frozen(config, model)
    tx = create_optimizer(config, schedule, frozen)
    gradient_options = dict(
        accumulation=parallel.accumulation,
        freeze_bn=config.model.freeze_bn,
        frozen=lambda params: frozen_params(config, params, frozen),
    )
    make_step = functools.partial(
        make_train_step,
        objective,
        model,
        tx,
        ema=config.optimizer.ema,
        nonfinite=config.optimizer.nonfinite,
        **gradient_options,
    )
    init = functools.partial(
        init_state, model, tx, config.seed, clip_shape(config.data), config.optimizer.ema is not None
    )
    abstract = _abstract(config, model, init)

    def make_runner(make: Callable) -> JitRunner | PmapRunner:
        if parallel.mode == "pmap":
            return PmapRunner(make(axis_name=PmapRunner.AXIS), mesh, abstract)
        return JitRunner(make(), mesh, state_shardings(abstract, mesh, parallel.rules))

    return Experiment(
        config=config,
        model=model,
        objective=objective,
        train_source=train_source,
        eval_source=eval_source,
        mesh=mesh,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        schedule=schedule,
        init=init,
        runner=make_runner(make_step),
        make_runner=make_runner,
        gradient_options=gradient_options,
        groups=groups_text(config, abstract.params, frozen),
        engine=Engine(mesh, make_apply(config, model, objective)),
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
    return f"{hint}; for an evaluation, lower evals.batch"


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


def _frozen(config: ConfigDict, model: nn.Module) -> str | None:
    """Returns a regex that matches the paths of frozen parameters, or None."""
    frozen = ["^trunk/"] if getattr(model, "frozen", False) else []
    if config.model.freeze_bn:
        shape = clip_shape(config.data)
        stats = flatten_dict(abstract_variables(model, shape).get("batch_stats", {}), sep="/")
        frozen += sorted({f"^{re.escape(path.rpartition('/')[0])}/" for path in stats})
    return "|".join(frozen) or None


def load_sources(config: ConfigDict) -> tuple[Source, Source]:
    """Returns the training and evaluation videos. Raises `UserError` if they are incompatible."""
    data = config.data
    train, test = (
        load_source(data.name, split, **data.options) for split in (data.train_split, data.eval_split)
    )
    if train.class_names != test.class_names:
        odd = sorted(set(train.class_names) ^ set(test.class_names))
        raise UserError(f"the classes of '{data.train_split}' and '{data.eval_split}' differ: {odd[:5]}")
    if isinstance(train, FeatureSource):
        check_origin(train.origin, test.origin, f"{train.path} and {test.path}")
        for source in (train, test):
            source.check(data)
        if unseen := sorted({r.label for r in test} - {r.label for r in train}):
            raise UserError(
                f"{test.path} has videos of '{train.class_names[unseen[0]]}', a class that {train.path} has "
                "none of: cache the features of all training videos"
            )
    elif data.modality == "features":
        raise UserError(f"data.modality=features needs the dataset 'features', not {data.name}")
    return train, test


def balanced(source: Source, limit: int) -> Source:
    """Returns at most `limit` videos, balanced over classes, in the order of the source."""
    order = np.random.default_rng(0).permutation(len(source))
    labels = np.array([source[int(i)].label for i in order])
    by_label = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), int)  # number of preceding videos of the same class
    rank[by_label] = np.arange(len(labels)) - np.searchsorted(labels[by_label], labels[by_label])
    chosen = np.sort(order[np.argsort(rank, kind="stable")[:limit]])
    return ListSource(tuple(source[int(i)] for i in chosen), source.class_names)


def evaluation_data(config: ConfigDict) -> ConfigDict:
    """Returns the data section with the crop size and number of frames of the test views."""
    data = config.data.copy_and_resolve_references()
    data.size = config.evals.size or data.size
    data.frames = config.evals.frames or data.frames
    return data


def build_model(config: ConfigDict, num_classes: int | None = None) -> tuple[nn.Module, Callable]:
    """Returns the model and objective of a config."""
    name = config.model.name
    spec = registry.spec(name)
    if spec.modality == "rgb" and len(spec.input_shape) == 3:
        raise UserError(f"{name} is an image model: use single_frame_{name} or late_fusion_{name} for videos")
    options = config.model.options.to_dict()
    if (spec.task == "pretrain") != (config.objective.name == "mae"):
        raise UserError(
            f"objective.name={config.objective.name} does not fit {name}: use mae for masked autoencoders "
            "and classify for classifiers"
        )
    modality = "features" if options.get("trunk", "") is None else spec.modality
    if modality != config.data.modality:
        raise UserError(
            f"{name} takes {modality}, but data.modality is {config.data.modality}: set data.modality="
            f"{modality}, or use another model (for features: linear_probe, attentive_probe, or a recurrent "
            "model with model.options.trunk=None)"
        )
    model = create_model(name, num_classes, tiny=config.model.tiny, dtype=config.model.dtype, **options)
    objective = create_objective(**config.objective, **statistics(spec, config.data))
    return model, objective


def make_apply(config: ConfigDict, model: nn.Module, objective: Any) -> Callable[[Any, dict], Any]:
    """Returns the evaluation function (variables, batch) -> outputs, see `Experiment.engine`."""
    spec = registry.spec(config.model.name)
    if spec.task == "pretrain":
        return functools.partial(pretraining_outputs, model, objective, jax.random.PRNGKey(config.seed))
    scale = statistics(spec, config.data)

    def one_view(variables: Any, video: Any) -> jax.Array:
        logits, _ = model.apply(variables, normalize(video, **scale), train=False)
        return logits.astype(jnp.float32)

    def logits(variables: Any, batch: dict) -> jax.Array:
        views = jax.tree.map(lambda x: x.swapaxes(0, 1), batch["video"])
        return jax.lax.map(functools.partial(one_view, variables), views).swapaxes(0, 1)  # one view at a time

    return logits


def pretraining_outputs(
    model: nn.Module, objective: Any, key: jax.Array, variables: Any, batch: dict
) -> dict:
    """Computes the loss and features of clips. The mask of a clip depends only on its `index`.

    Returns:
      A dict of `error` and `weight`, float32 [B], and `features`, float32 [B, D]. The loss is the sum of
      `error` divided by the sum of `weight`.
    """
    clip = normalize(batch["video"][:, 0], objective.mean, objective.std)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])
    drawn = jax.vmap(lambda key: jax.tree.map(lambda x: x[0], draw(model, key, (1, *clip.shape[1:]))))(keys)
    error, weight, _ = objective.clip_errors(model, variables["params"], clip, *drawn)
    features = model.apply(variables, clip, method="encode")["pre_logits"]
    return {"error": error, "weight": weight, "features": features.astype(jnp.float32)}


def initial_state(exp: Experiment) -> State:
    """Returns a newly initialized state on the mesh, with the weights of `init.path` if it is set."""
    state = jax.jit(exp.init, out_shardings=exp.runner.state_shardings)()
    init = exp.config.init
    if init.path:
        model = exp.config.model
        options = dict(tiny=model.tiny, **model.options.to_dict())
        path = init.path
        if files.absolute(path).is_dir():
            path = find_checkpoint(path, init.which)
        weights = read_weights(model.name, path, inflation=init.inflation, **options)
        notes = weights.notes
        if weights.owner == model.name and weights.preprocessing:
            notes += weights.preprocessing.differences(exp.model, exp.objective.mean, exp.objective.std)
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


def _abstract(config: ConfigDict, model: nn.Module, init: Callable[[], State]) -> State:
    options = ", ".join(f"{k}={v}" for k, v in config.model.options.items())
    shape = clip_shape(config.data)
    refusal = f"{config.model.name}({options}) does not take clips of {registry.shape_text(shape)}"
    with refusing(refusal):
        abstract = jax.eval_shape(init)
        variables = {"params": abstract.params, **abstract.model_state}
        _, endpoints = jax.eval_shape(model.apply, variables, registry.dummy_input(shape))
    check_endpoints(refusal, {name: x.shape for name, x in endpoints.items()})
    return abstract
