"""Probes that classify cached features of a frozen model.

  knn        weighted k-nearest neighbors, without training (Wu et al., arXiv:1805.01978, section 3.4)
  linear     linear classifier on pooled features
  linear_bn  linear classifier after a BatchNorm without parameters, as used for masked autoencoders (He et
             al., arXiv:2111.06377, appendix A.1 and the authors' script: 90 epochs, 10 epochs of warmup,
             cosine schedule, learning rate 0.1 x batch / 256, no weight decay). Both linear probes deviate
             from it: SGD with momentum 0.9 and a batch of 256 instead of LARS with a batch of 16,384
  attentive  cross-attention from a learned query to the tokens of dense features (Bardes et al.,
             arXiv:2404.08471, and the authors' configs: 20 epochs, AdamW, learning rate 1e-3, weight decay
             0.01, cosine schedule, batch 256)

Training uses one random row of each video. Evaluation averages the scores of up to ten evenly spaced rows.
There is no augmentation, because the features are computed once.
"""

from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from vidjax.config import ConfigDict, resolve
from vidjax.data.datasets import Source
from vidjax.data.datasets.features import load
from vidjax.errors import UserError, unknown
from vidjax.metrics.features import knn_predict
from vidjax.tasks.results import ClassificationResult
from vidjax.train.experiment import load_sources
from vidjax.train.loop import train

KINDS = ("knn", "linear", "linear_bn", "attentive")
VIEWS = 10


def probe(
    path: str, workdir: epath.PathLike, kind: str = "linear", k: int = 20, overrides: Sequence[str] = ()
) -> ClassificationResult | None:
    """Fits a probe to the training features and evaluates it on the test features.

    Args:
      path: output of `vidjax features`, with "{split}" in place of the split.
      workdir: output folder; gets the files of `vidjax.train.loop.train`, or for "knn" result.npz and
        predictions.jsonl.
      kind: one of `KINDS`, see the module docstring.
      k: number of neighbors for "knn".
      overrides: overrides of the config returned by `recipe`.

    Returns:
      The result, or None if training was interrupted.

    Raises:
      UserError: unknown kind; incompatible files (see `vidjax.data.datasets.features`); a test class without
        training videos; pooled features for the attentive probe.
    """
    config = recipe(path, kind, overrides)
    if kind != "knn":
        results = train(config, workdir)
        return results and results["val"]
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    bank, test = load_sources(config)
    queries, labels = _pooled(test)
    scores = knn_predict(*_pooled(bank), queries, len(test.class_names), k)
    votes = scores / scores.sum(1, keepdims=True)
    # The offset keeps the loss of classes without votes finite.
    logits = np.log(votes + 1e-3).astype(np.float32)[:, None]
    result = ClassificationResult([r.id for r in test], labels, logits, test.class_names)
    workdir = epath.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    result.write(workdir)
    return result


def recipe(path: str, kind: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Returns the resolved config of a probe. Raises the same errors as `probe`."""
    if kind not in KINDS:
        raise unknown("probe kind", kind, KINDS)
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
            feature_width=source.width,
            feature_tokens=source.tokens,
            frames=1,
            stride=1.0,
        ),
        model=dict(name="attentive_probe" if attentive else "linear_probe"),
        schedule=dict(name="cosine", warmup_epochs=0.0 if attentive else 10.0),
        evals=dict(val=dict(type="metrics", every=0.0, clips=min(VIEWS, max(source.lengths)))),
        checkpoint=dict(every_epochs=0.0),
    )
    if attentive:
        # Heads of width 64, as in the encoders.
        heads = next(h for h in range(max(1, source.width // 64), 0, -1) if source.width % h == 0)
        config["model"]["options"] = dict(heads=heads)
        config["optimizer"] = dict(name="adamw", lr=1e-3, lr_batch=256, weight_decay=0.01)
    else:
        config["model"]["options"] = dict(batch_norm=kind == "linear_bn")
        config["optimizer"] = dict(name="sgd", lr=0.1, lr_batch=256)
    return resolve(config, overrides)


def _pooled(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean features of each video, float32 [M, D], and the labels, int [M]."""
    rows = [record.video.open().rows for record in source]
    return (
        np.stack([x.reshape(-1, x.shape[-1]).mean(0, dtype=np.float32) for x in rows]),
        np.array([record.target.label for record in source]),
    )
