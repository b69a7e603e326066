"""Evaluates pretraining: loss, nearest-neighbor probe of the features, and reconstructions."""

import functools
import io
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image

from vidjax.data.datasets import Source
from vidjax.data.pipeline import eval_batches
from vidjax.errors import UserError
from vidjax.metrics.features import effective_rank, feature_std, knn_predict
from vidjax.reports.reconstruction import PANELS, animation, reconstruct, sheet
from vidjax.sharding import in_mesh, mesh_hosts
from vidjax.tasks.results import MetricsResult
from vidjax.train.experiment import Experiment, balanced

SHOWN = 4  # clips in the images of reconstructions


def evaluate_pretraining(
    exp: Experiment, variables: Any, workdir: epath.PathLike | None, step: int
) -> MetricsResult:
    """Computes the loss, kNN accuracy, and feature statistics, and draws reconstructions.

    A weighted k-nearest-neighbor classifier predicts the evaluation split from at most `evals.probe_videos`
    training videos, balanced over classes. The mask of a clip is sampled from the seed and the index of the
    clip, so the results are independent of the batch size and the mesh. Reconstructions are written to
    WORKDIR/reconstructions.
    """
    bank, test = exp.probe_sources
    keys = _embed(exp, variables, bank)
    queries = _embed(exp, variables, test)
    scores = knn_predict(keys["features"], keys["label"], queries["features"], len(test.class_names))
    metrics = {
        "loss": float(queries["error"].sum() / queries["weight"].sum()),
        "knn_top1": float((scores.argmax(1) == queries["label"]).mean()),
        "feature_std": feature_std(queries["features"]),
        "effective_rank": effective_rank(queries["features"]),
    }
    if workdir is not None:
        _draw(exp, variables, test, epath.Path(workdir) / "reconstructions", step)
    return MetricsResult(metrics, "knn_top1", "pretraining.json")


def _embed(exp: Experiment, variables: Any, source: Source) -> dict[str, np.ndarray]:
    """Returns `pretraining_outputs` in float64 and labels of the readable videos of a source, in order."""
    evals = exp.config.evals
    size = exp.engine.batch_size(min(len(source), evals.batch or exp.config.batch))
    hosts = dict(host=jax.process_index(), hosts=exp.engine.hosts)
    batches = eval_batches(source, exp.config.data, size, 1, 1, **hosts)
    parts = []
    for batch in exp.engine.run(variables, batches):
        rows = {"label": batch["label"], "index": batch["index"], **batch["outputs"]}
        parts.append({k: v[batch["mask"]] for k, v in rows.items()})
    joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    if not len(joined["index"]):
        raise UserError("none of the videos of the nearest-neighbor probe can be read")
    order = np.argsort(joined["index"])
    return {k: v[order] if k == "label" else v[order].astype(np.float64) for k, v in joined.items()}


def _draw(exp: Experiment, variables: Any, source: Source, folder: epath.Path, step: int) -> None:
    """Writes reconstructions to step_N.png and step_N.gif. All hosts compute, host 0 writes."""
    together = mesh_hosts(exp.mesh)
    host = jax.process_index() if together > 1 else 0
    size = exp.engine.batch_size(SHOWN) * together // exp.engine.hosts
    batches = eval_batches(balanced(source, SHOWN), exp.config.data, size, 1, 1, host=host, hosts=together)
    batch = next(iter(batches))
    placed = exp.engine.place({"video": batch["video"][:, 0], "mask": batch["mask"]})
    panels, good = jax.device_get(_reconstruct(exp)(variables, placed))
    if jax.process_index() or not good.any():
        return
    clips = [{n: panels[n][i] for n in PANELS if n in panels} for i in np.flatnonzero(good)]
    folder.mkdir(parents=True, exist_ok=True)
    sheets = [sheet(clip) for clip in clips]
    image = Image.new("RGB", (sheets[0].width, sum(s.height + 8 for s in sheets)), "white")
    for i, one in enumerate(sheets):
        image.paste(one, (0, i * (one.height + 8)))
    _write(image, folder / f"step_{step}.png")
    first, *rest = animation(clips[0])
    _write(first, folder / f"step_{step}.gif", save_all=True, append_images=rest, duration=200, loop=0)


def _reconstruct(exp: Experiment) -> Any:
    """Returns a function (variables, batch) -> panels of the first clips and their validity, on all hosts."""
    if "reconstruct" not in exp.compiled:
        objective = exp.objective
        run = functools.partial(
            reconstruct,
            exp.model,
            rng=jax.random.PRNGKey(exp.config.seed),
            mean=objective.mean,
            std=objective.std,
            normalized=objective.normalize_targets,
        )

        def first_panels(variables: Any, batch: Any) -> Any:
            panels = run(variables, batch["video"])
            return jax.tree.map(lambda x: x[:SHOWN], (panels, batch["mask"]))

        whole = NamedSharding(exp.mesh, P())
        exp.compiled["reconstruct"] = jax.jit(in_mesh(exp.mesh, first_panels), out_shardings=whole)
    return exp.compiled["reconstruct"]


def _write(image: Image.Image, path: epath.Path, **options: Any) -> None:
    encoded = io.BytesIO()
    image.save(encoded, path.suffix[1:], **options)
    path.write_bytes(encoded.getvalue())
