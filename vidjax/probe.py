"""Probes: how well a frozen model's cached features tell the classes.

  knn        weighted k-nearest neighbours (arXiv:1805.01978, section 3.4); nothing is trained
  linear     a linear classifier of pooled features
  linear_bn  the same behind a BatchNorm without parameters, as masked autoencoders are probed (He et al.,
             arXiv:2111.06377, appendix A.1 and the authors' script: 90 epochs, 10 of warm-up, cosine, rate
             0.1 x batch / 256, no decay). Deviation of both: SGD with momentum 0.9 at a batch of 256 in place
             of LARS at 16,384
  attentive  a query attends to the tokens of dense features (Bardes et al., arXiv:2404.08471, and the
             authors' configs: 20 epochs, AdamW, rate 1e-3, decay 0.01, cosine, batch 256)

A sample is one row of a video, in training a random one; in testing the scores of its rows are averaged, of
up to ten that lie evenly over it. There is no augmentation, since the features were computed once.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from vidjax.config import ConfigDict, resolve
from vidjax.data.datasets import Source
from vidjax.data.datasets.features import load
from vidjax.errors import UserError, unknown
from vidjax.evals.classification import ClassificationResult
from vidjax.evals.pretraining import knn_predict
from vidjax.train.experiment import load_sources
from vidjax.train.loop import train

KINDS = ("knn", "linear", "linear_bn", "attentive")
VIEWS = 10


def probe(
    path: str, workdir: str | pathlib.Path, kind: str = "linear", k: int = 20, overrides: Sequence[str] = ()
) -> ClassificationResult | None:
    """Fits a probe to the training features and evaluates it on the test features.

    Args:
      path: file of `vidjax features`, with "{split}" for the split.
      workdir: gets what `vidjax.train.loop.train` leaves; of "knn" result.npz and predictions.jsonl.
      kind: one of `KINDS`, see the module.
      k: neighbours of "knn".
      overrides: of the config that `recipe` makes.

    Returns:
      The result; None where training was asked to stop before its end.

    Raises:
      UserError: an unknown kind; files that do not go together (see `vidjax.data.datasets.features`), or a
        test class without a training video; pooled features for the attentive probe.
    """
    config = recipe(path, kind, overrides)
    if kind != "knn":
        return train(config, workdir)
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    bank, test = load_sources(config)
    queries, labels = _pooled(test)
    scores = knn_predict(*_pooled(bank), queries, len(test.class_names), k)
    votes = scores / scores.sum(1, keepdims=True)
    # A class without a vote is unlikely, not impossible: its loss is finite.
    logits = np.log(votes + 1e-3).astype(np.float32)[:, None]
    result = ClassificationResult([r.id for r in test], labels, logits, test.class_names)
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    result.write(workdir)
    return result


def recipe(path: str, kind: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a probe, resolved. Raises as `probe`."""
    if kind not in KINDS:
        raise unknown("kind of probe", kind, KINDS)
    source = load("train", path)
    devices = jax.device_count()
    batch = max(1, min(256, len(source)) // devices) * devices
    attentive = kind == "attentive"
    config = dict(
        batch=batch,
        epochs=20.0 if attentive else 90.0,
        data=dict(
            name="features",
            options=dict(path=path),
            modality="features",
            feature_width=source.width,
            feature_tokens=source.tokens,
            frames=1,
            stride=1.0,
        ),
        model=dict(name="attentive_probe" if attentive else "linear_probe"),
        schedule=dict(name="cosine", warmup_epochs=0.0 if attentive else 10.0),
        evals=dict(every_epochs=0.0, clips=min(VIEWS, max(source.lengths))),
        checkpoint=dict(every_epochs=0.0),
    )
    if attentive:
        # Of 64 numbers each, as many as the encoders of such a width have.
        heads = next(h for h in range(max(1, source.width // 64), 0, -1) if source.width % h == 0)
        config["model"]["options"] = dict(heads=heads)
        config["optimizer"] = dict(name="adamw", lr=1e-3, lr_batch=256, weight_decay=0.01)
    else:
        config["model"]["options"] = dict(batch_norm=kind == "linear_bn")
        config["optimizer"] = dict(name="sgd", lr=0.1, lr_batch=256)
    return resolve(config, overrides)


def _pooled(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """The mean of all that a file has of each video, float32 [M, D], and labels int [M]."""
    rows = [record.video.open().rows for record in source]
    return (
        np.stack([x.reshape(-1, x.shape[-1]).mean(0, dtype=np.float32) for x in rows]),
        np.array([record.label for record in source]),
    )
