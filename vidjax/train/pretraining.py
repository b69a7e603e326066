"""Evaluation of a run that learns without labels: its loss, a probe by neighbours, and reconstructions."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from PIL import Image

from vidjax import registry
from vidjax.data.datasets import ListSource, Source
from vidjax.data.pipeline import eval_batches
from vidjax.errors import UserError
from vidjax.evals.pretraining import PretrainingResult, effective_rank, feature_std, knn_predict
from vidjax.evals.reconstruction import PANELS, animation, reconstruct, sheet
from vidjax.layers.preprocess import normalize
from vidjax.train.experiment import Experiment

SHOWN = 4  # clips in the pictures


def evaluate_pretraining(
    exp: Experiment, variables: Any, workdir: pathlib.Path | None, step: int
) -> PretrainingResult:
    """Loss, kNN accuracy and health of the features; pictures in WORKDIR/reconstructions.

    The labels of the training split's videos (`evals.probe_videos` of them at most, of all classes alike)
    serve as the bank of a weighted k-nearest-neighbour classifier of the evaluation split. Masks come from a
    fixed key. Every process does all of it; the videos of a probe are few.
    """
    bank, test = probe_sources(exp)
    variables = jax.device_put(variables, jax.local_devices()[0])
    _, known, labels = _embed(exp, variables, bank)
    loss, asked, true = _embed(exp, variables, test)
    scores = knn_predict(known, labels, asked, len(test.class_names))
    metrics = {
        "loss": loss,
        "knn_top1": float((scores.argmax(1) == true).mean()),
        "feature_std": feature_std(asked),
        "effective_rank": effective_rank(asked),
    }
    if workdir is not None and jax.process_index() == 0:
        _draw(exp, variables, test, pathlib.Path(workdir) / "reconstructions", step)
    return PretrainingResult(metrics)


@functools.lru_cache(maxsize=1)  # reads every video's label
def probe_sources(exp: Experiment) -> tuple[Source, Source]:
    """The videos of the bank, and those that are asked about.

    Raises:
      UserError: a class of the latter that the former has no video of.
    """
    limit = exp.config.evals.probe_videos
    bank, test = (_some(s, limit) for s in (exp.train_source, exp.eval_source))
    if unseen := sorted({r.label for r in test} - {r.label for r in bank}):
        names = ", ".join(test.class_names[i] for i in unseen[:5])
        raise UserError(
            f"the neighbour probe is asked about classes that none of its {len(bank)} training videos has "
            f"({names}): raise evals.probe_videos, or leave those classes out"
        )
    return bank, test


def _some(source: Source, limit: int) -> Source:
    """At most `limit` videos, of each class as many as of any other, in the source's order."""
    order = np.random.default_rng(0).permutation(len(source))
    labels = np.array([source[int(i)].label for i in order])
    by_label = np.argsort(labels, kind="stable")
    turn = np.empty(len(labels), int)  # how many of its class come before a video
    turn[by_label] = np.arange(len(labels)) - np.searchsorted(labels[by_label], labels[by_label])
    chosen = np.sort(order[np.argsort(turn, kind="stable")[:limit]])
    return ListSource(tuple(source[int(i)] for i in chosen), source.class_names)


def _clips(exp: Experiment, source: Source, batch: int) -> Iterator[dict]:
    return iter(eval_batches(source, exp.config.data, batch, 1, 1))


def _embed(exp: Experiment, variables: Any, source: Source) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean loss, features of whole clips [N, D] and labels [N] of a source's readable videos."""
    spec = registry.spec(exp.config.model.name)

    @jax.jit
    def run(variables, video):
        clip = normalize(video, spec.mean, spec.std)
        endpoints = exp.model.apply(variables, clip, method="encode")
        params, rng = variables["params"], jax.random.PRNGKey(exp.config.seed)
        loss, _ = exp.objective(exp.model, params, {}, {"video": video}, rng, False)
        return loss, endpoints["pre_logits"]

    losses, features, labels = [], [], []
    for batch in _clips(exp, source, min(len(source), exp.config.evals.batch or exp.config.batch)):
        loss, x = run(variables, batch["video"][:, 0])
        good = batch["mask"]
        losses.append((float(loss), int(good.sum())))
        features.append(np.asarray(x)[good])
        labels.append(batch["label"][good])
    weights = [n for _, n in losses]
    if not sum(weights):
        raise UserError("none of the probe's videos can be read")
    loss = float(np.average([x for x, _ in losses], weights=weights))
    return loss, np.concatenate(features), np.concatenate(labels)


def _draw(exp: Experiment, variables: Any, source: Source, folder: pathlib.Path, step: int) -> None:
    """step_N.png, clips below each other, and step_N.gif."""
    spec = registry.spec(exp.config.model.name)
    batch = next(_clips(exp, _some(source, SHOWN), min(SHOWN, len(source))))
    normalized = exp.config.objective.normalize_targets
    run = jax.jit(
        functools.partial(reconstruct, exp.model, mean=spec.mean, std=spec.std, normalized=normalized)
    )
    key = jax.random.PRNGKey(exp.config.seed)
    panels = jax.device_get(run(variables, batch["video"][:, 0], key))
    clips = [{n: panels[n][i] for n in PANELS if n in panels} for i in np.flatnonzero(batch["mask"])]
    folder.mkdir(exist_ok=True)
    sheets = [sheet(clip) for clip in clips]
    picture = Image.new("RGB", (sheets[0].width, sum(s.height + 8 for s in sheets)), "white")
    for i, one in enumerate(sheets):
        picture.paste(one, (0, i * (one.height + 8)))
    picture.save(folder / f"step_{step}.png")
    first, *rest = animation(clips[0])
    first.save(folder / f"step_{step}.gif", save_all=True, append_images=rest, duration=200, loop=0)
