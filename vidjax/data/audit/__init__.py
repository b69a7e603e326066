"""Audits the sampling of clips: reads a few videos as a run does, and looks for faults in what comes out."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vidjax.data.audit import labels, spatial, temporal
from vidjax.data.audit.findings import Finding, Shown, videos_text
from vidjax.data.audit.mismatch import mismatch
from vidjax.data.audit.observe import Observed, Part, choose, observe_evaluation, observe_training

__all__ = ["Audit", "Finding", "Part", "Shown", "audit"]

SEVERITIES = ("error", "warning", "note")
_COMPARED = 8  # videos per part whose pixels are compared with the clips


def _unreadable(seen: Observed) -> Iterator[Finding]:
    """Records that cannot be read."""
    if seen.unreadable:
        message = f"{videos_text(seen.unreadable, seen)} cannot be read"
        shown = tuple(Shown(i, "", (), (), text) for i, text in seen.unreadable.items())
        severity = "warning" if seen.clips else "error"
        yield Finding("unreadable", severity, seen.part.name, message, "see `vidjax data check`", shown)


# Of one part; in the order of the report.
_CHECKS: tuple[Callable[[Observed], Iterator[Finding]], ...] = (
    temporal.frames,
    temporal.coverage,
    spatial.content,
    temporal.short,
    temporal.spacing,
    spatial.aspect,
    spatial.views,
    spatial.normalization,
    _unreadable,
)


@dataclasses.dataclass(frozen=True)
class Audit:
    """What `audit` found.

    Attributes:
      parts: a line on what was read of each part.
      findings: errors first.
    """

    parts: tuple[str, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        return sum(f.severity == severity for f in self.findings)


def audit(
    train: Part,
    evals: Sequence[Part],
    streams: Sequence[str] = ("rgb",),
    videos: int = 32,
    seed: int = 0,
    labeled: bool = True,
    normalize: Callable[..., Any] | None = None,
    draws: int = 4,
) -> Audit:
    """Reads a sample of the videos of an experiment, and looks for faults.

    Clips are read by the code that training and evaluation use, without the cache of frames. Faults are found
    in their frames, times, geometries, labels and pixels, whatever made them.

    Args:
      train: the training split.
      evals: the evaluations.
      streams: the modalities of a clip.
      videos: number of videos to read of each part, some of them of each class with a direction in its name.
      seed: of the choice and of the augmentation.
      labeled: whether the task learns from labels or texts, so that flips can be wrong.
      normalize: converts a batch of inputs to what the model takes; None leaves the check out.
      draws: training clips of each video.
    """
    turning = labels.directional(train.source.class_names) if labeled and train.cfg.flip else []
    records = choose(train.source, videos, seed, turning)
    trained = observe_training(train, records, streams, draws, seed, _COMPARED)
    seen = [trained]
    findings: list[Finding] = []
    for part in evals:
        tested = observe_evaluation(part, choose(part.source, videos, seed), streams, _COMPARED)
        seen.append(tested)
        again = dataclasses.replace(part, source=train.source, clips=1, crops=1, cover=None)
        findings += mismatch(trained, observe_evaluation(again, records, streams, 0))
    for each in seen:
        each.normalized = _normalized(each, normalize)
        for check in _CHECKS:
            findings += check(each)
    findings += temporal.fps(seen)
    if labeled:
        findings += labels.flips(trained)
    findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    return Audit(tuple(_line(each, draws) for each in seen), tuple(findings))


def _line(seen: Observed, draws: int) -> str:
    part = seen.part
    clips = f"{draws} training clips" if part.name == "train" else f"{part.clips} clips x {part.crops} crops"
    return f"{part.name}: {clips} of each of {len(seen.records):,} of {seen.total:,} videos"


def _normalized(seen: Observed, normalize: Callable | None) -> tuple[float, float] | None:
    """Returns the mean and the standard deviation of the model's rgb input over a few clips."""
    values = []
    if normalize is None:
        return None
    for inputs in seen.inputs:
        made = normalize({name: x[None] for name, x in inputs.items()})
        rgb = made.get("rgb") if isinstance(made, Mapping) else made if "rgb" in inputs else None
        if rgb is not None:
            values.append(np.asarray(rgb).ravel())
    return (float(np.mean(values)), float(np.std(values))) if values else None
