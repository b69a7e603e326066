"""Ranks the registered models for given data and a compute budget.

The rule is data: `FILTERS` exclude models, and `ORDERS` sort the rest, the first criterion first. Accuracies
are published ones, compared only on the same dataset. Costs are counted, see `vidjax.analysis.evidence`.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import vidjax.models  # noqa: F401  registers them
from vidjax.analysis import latency
from vidjax.analysis.evidence import DATASETS, PATH, pretraining
from vidjax.errors import UserError
from vidjax.registry import ModelSpec, shape_text, spec

CUES = ("appearance", "motion")
MODALITIES = ("rgb", "flow", "rgb+flow")
PER = ("video", "view")
# The dataset whose published accuracies are compared.
REFERENCE = {"appearance": "Kinetics-400", "motion": "Something-Something v2"}
# With fewer labeled videos, models with pretrained weights come first. This is a convention, between UCF101
# (9,537 training videos) and Kinetics-400 (about 240,000), on which SlowFast and X3D train from scratch.
FEW_VIDEOS = 100_000
FALLBACK = "weizmann/any_model"
MEASURED = 12  # the most models timed for a latency budget
# The fastest 3x3 convolution, Winograd's F(4x4, 3x3), takes a quarter of the multiply-adds. So no model is
# expected to exceed four times the throughput of a matrix product.
SAVING = 4


@dataclasses.dataclass(frozen=True)
class Request:
    """What the models are ranked for.

    Attributes:
      cue: what tells the classes apart: "appearance" (objects and scenes) or "motion" (order and direction).
      videos: number of labeled training videos.
      gmacs, latency: most GMACs, and most milliseconds on this machine, per `unit`.
      params: most parameters.
      per: what `gmacs` and `latency` are counted for: "video" (default), all views of the protocol of the
        published accuracy; or "view". With `streaming` it is a frame.
      streaming: whether to require frame-by-frame inference.
      modality: one of MODALITIES.
      top: number of models to return.
      measure: whether to time them.
    """

    cue: str | None = None
    videos: int | None = None
    gmacs: float | None = None
    latency: float | None = None
    params: float | None = None
    per: str | None = None
    streaming: bool = False
    modality: str = "rgb"
    top: int = 5
    measure: bool = False

    def __post_init__(self) -> None:
        for name in ("videos", "gmacs", "latency", "params", "top"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name} must be positive and finite, got {value}")
        for name, choices in (("cue", (None, *CUES)), ("per", (None, *PER)), ("modality", MODALITIES)):
            if getattr(self, name) not in choices:
                options = ", ".join(filter(None, choices))
                raise UserError(f"{name} must be one of {options}, got {getattr(self, name)!r}")
        if self.streaming and self.per:
            raise UserError(f"per={self.per} does not apply to streaming models, whose budget is per frame")

    @property
    def unit(self) -> str:
        return "frame" if self.streaming else self.per or "video"

    @property
    def few(self) -> bool:
        return self.videos is not None and self.videos < FEW_VIDEOS

    @property
    def reference(self) -> str:
        return REFERENCE[self.cue or "appearance"]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model with one of its published accuracies, if it has any.

    Attributes:
      spec: the model.
      figure: the published accuracy, one of `figures` in evidence.json.
      entry: what evidence.json holds of the model.
    """

    spec: ModelSpec
    figure: dict[str, Any] | None
    entry: dict[str, Any]

    @property
    def view_gmacs(self) -> float:
        return self.figure["gmacs"] if self.figure else self.entry["gmacs"]

    @property
    def view_shape(self) -> Any:
        return self.figure["shape"] if self.figure else self.spec.input_shape

    @property
    def views(self) -> int:
        """Number of views per video; 1 if a view is the whole video, and without a published protocol."""
        if not self.figure or self.figure["views"] == "whole video":
            return 1
        return math.prod(map(int, self.figure["views"].split("x")))

    def gmacs(self, unit: str) -> float | None:
        """Returns the cost of a "video", "view" or "frame"; None for a frame if the model does not stream."""
        if unit == "frame":
            return self.entry["step_gmacs"]
        return self.view_gmacs * (self.views if unit == "video" else 1)

    @property
    def weights(self) -> tuple[str, str]:
        """Source and license of pretrained weights: those of the published accuracy if they are listed, else
        any; empty if there are none."""
        checkpoints = self.entry["checkpoints"]
        name = (self.figure and self.figure["checkpoint"]) or next(iter(checkpoints), None)
        if not name:
            return self.spec.weights, self.spec.licence
        return f"{name}, {checkpoints[name]['url']}", checkpoints[name]["licence"]

    def dataset(self, request: Request) -> str | None:
        """Returns the dataset of the published accuracy; None if that is not of the form that streams."""
        other_form = request.streaming and self.entry["stream_options"]
        return None if other_form or not self.figure else self.figure["dataset"]


def weights_level(c: Candidate) -> int:
    """Returns 0 for a model with pretrained weights, 1 for one that can start from image weights or be
    pretrained by masking, and 2 for others."""
    sources = filter(None, c.spec.weights.split("; "))
    if c.entry["checkpoints"] or any("(trunk)" not in source for source in sources):
        return 0
    return 1 if backbone(c.spec) or pretraining(c.spec) else 2


def backbone(s: ModelSpec) -> ModelSpec | None:
    """Returns the image model whose pretrained weights a model can start from, if there is one."""
    name = s.inflates or s.preset.get("trunk")
    return spec(name) if name and spec(name).weights else None


@dataclasses.dataclass(frozen=True)
class Filter:
    """A requirement.

    Attributes:
      flag: the flag that sets it.
      applies: whether a request has it.
      ratio: need of a candidate relative to the limit: at most 1 if it fits; infinite if it lacks a property.
      rule: the requirement in words.
      fact: what a candidate has instead, in words.
    """

    flag: str
    applies: Callable[[Request], bool]
    ratio: Callable[[Candidate, Request], float]
    rule: Callable[[Request], str]
    fact: Callable[[Candidate, Request], str]


def _has(fits: bool) -> float:
    return 0.0 if fits else math.inf


def _modality(c: Candidate) -> str:
    return "+".join(c.spec.streams)


def _cost_ratio(c: Candidate, r: Request) -> float:
    cost = c.gmacs(r.unit)
    return math.inf if cost is None or not r.gmacs else cost / r.gmacs


def _cost_fact(c: Candidate, r: Request) -> str:
    cost = c.gmacs(r.unit)
    return (
        f"needs {_number(cost)} GMACs per {r.unit}" if cost is not None else f"has no known cost per {r.unit}"
    )


FILTERS = (
    Filter(
        flag="--modality",
        applies=lambda r: True,
        ratio=lambda c, r: _has(_modality(c) == r.modality),
        rule=lambda r: f"takes {r.modality}",
        fact=lambda c, r: f"takes {_modality(c)}",
    ),
    Filter(
        flag="--streaming",
        applies=lambda r: r.streaming,
        ratio=lambda c, r: _has(c.entry["step_gmacs"] is not None),
        rule=lambda r: "runs frame by frame",
        fact=lambda c, r: "does not run frame by frame",
    ),
    Filter(
        flag="--cue",
        applies=lambda r: r.cue == "motion",
        ratio=lambda c, r: _has(c.spec.order_aware),
        rule=lambda r: "depends on the order of frames",
        fact=lambda c, r: "does not depend on the order of frames",
    ),
    Filter(
        flag="--gmacs",
        applies=lambda r: r.gmacs is not None,
        ratio=_cost_ratio,
        rule=lambda r: f"needs at most {r.gmacs:g} GMACs per {r.unit}",
        fact=_cost_fact,
    ),
    Filter(
        flag="--params",
        applies=lambda r: r.params is not None,
        ratio=lambda c, r: c.entry["params"] / (r.params or math.inf),
        rule=lambda r: f"has at most {r.params:,.0f} parameters",
        fact=lambda c, r: f"has {c.entry['params']:,} parameters",
    ),
)


@dataclasses.dataclass(frozen=True)
class Order:
    """A sort criterion.

    Attributes:
      applies: whether a request has it.
      key: the sort key of a candidate, ascending.
      rule: the criterion in words.
    """

    applies: Callable[[Request], bool]
    key: Callable[[Candidate, Request], Any]
    rule: Callable[[Request], str]


def _dataset_key(c: Candidate, r: Request) -> int:
    others = (d for d in DATASETS.values() if d != r.reference)
    return (r.reference, *others, None).index(c.dataset(r))


def _cost_key(c: Candidate, r: Request) -> tuple[float, str]:
    cost = c.gmacs(r.unit)
    return math.inf if cost is None else cost, c.spec.name


ORDERS = (
    Order(
        applies=lambda r: r.few,
        key=lambda c, r: weights_level(c),
        rule=lambda r: (
            "pretrained weights of the model, then image weights or masked pretraining, then none "
            f"({r.videos:,} labeled videos are fewer than {FEW_VIDEOS:,})"
        ),
    ),
    Order(
        applies=lambda r: True,
        key=_dataset_key,
        rule=lambda r: f"dataset of the published accuracy, {r.reference} first",
    ),
    Order(
        applies=lambda r: True,
        key=lambda c, r: -c.figure["top1"] if c.figure and c.dataset(r) else 0.0,
        rule=lambda r: "published accuracy on that dataset",
    ),
    Order(applies=lambda r: True, key=_cost_key, rule=lambda r: f"lower cost per {r.unit}"),
)


@functools.cache
def candidates() -> tuple[Candidate, ...]:
    """Returns a candidate per published accuracy of a model, and one for each model without any."""
    entries = json.loads(PATH.read_text("utf-8"))
    return tuple(Candidate(spec(n), f, e) for n, e in entries.items() for f in e["figures"] or (None,))


def ranked(request: Request) -> list[Candidate]:
    """Returns the best candidate of each model that fits, best first.

    Raises:
      UserError: no model fits; the message names the nearest one and what it lacks.
    """
    filters = [f for f in FILTERS if f.applies(request)]
    orders = [o for o in ORDERS if o.applies(request)]
    best_first = sorted(candidates(), key=lambda c: [o.key(c, request) for o in orders])
    fitting = [c for c in best_first if all(f.ratio(c, request) <= 1 for f in filters)]
    if not fitting:
        raise _nothing_fits(request, filters, best_first)
    best: dict[str, Candidate] = {}
    for c in fitting:
        best.setdefault(c.spec.name, c)
    return list(best.values())


def _nothing_fits(request: Request, filters: Sequence[Filter], best_first: Sequence[Candidate]) -> UserError:
    def distance(c: Candidate) -> tuple[int, float]:
        missed = [ratio for f in filters if (ratio := f.ratio(c, request)) > 1]
        finite = [ratio for ratio in missed if ratio < math.inf]
        return len(missed) - len(finite), max(finite, default=0.0)

    nearest = min(best_first, key=distance)
    missed = [f for f in filters if f.ratio(nearest, request) > 1]
    return UserError(
        f"no registered model {_and([f.rule(request) for f in filters])}; the nearest is "
        f"{nearest.spec.name}, which {_and([f.fact(nearest, request) for f in missed])}: change "
        f"{_and([f.flag for f in missed])}"
    )


def _and(words: Sequence[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def pick(request: Request, log: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Ranks the models for a request, ready for JSON; `page` formats the result as text.

    Args:
      request: what to rank them for.
      log: receives a line of progress per timed model.

    Raises:
      UserError: no model fits.
    """
    fitting = ranked(request)
    shown, milliseconds, notes, elsewhere = fitting[: request.top], {}, [], []
    if request.latency is not None:
        shown, milliseconds, note = _within_latency(fitting, request, log)
        notes.append(note)
    else:
        elsewhere = _first_elsewhere(fitting, shown, request)
        if request.measure:
            milliseconds = {c.spec.name: _milliseconds(c, request, log) for c in shown}
    rows = [_row(c, request, milliseconds.get(c.spec.name)) for c in shown]
    return {
        "request": dataclasses.asdict(request),
        "unit": request.unit,
        "required": [f.rule(request) for f in FILTERS if f.applies(request)],
        "ranked_by": [o.rule(request) for o in ORDERS if o.applies(request)],
        "fitting": len(fitting),
        "candidates": rows,
        "elsewhere": [_row(c, request, None) for c in elsewhere],
        "notes": [*notes, *_notes(request, rows)],
    }


def _first_elsewhere(
    fitting: Sequence[Candidate], shown: Sequence[Candidate], request: Request
) -> list[Candidate]:
    """Returns the first candidate on each dataset that no candidate shown has its accuracy on."""
    first: dict[str | None, Candidate] = {}
    for c in fitting:
        first.setdefault(c.dataset(request), c)
    seen = {None, *(c.dataset(request) for c in shown)}
    return [c for dataset, c in first.items() if dataset not in seen]


def _row(c: Candidate, r: Request, milliseconds: float | None) -> dict[str, Any]:
    """Describes a candidate, ready for JSON."""
    s, config, (weights, licence) = c.spec, starting_config(c, r), c.weights
    published = None
    if c.figure:
        published = {key: c.figure[key] for key in ("dataset", "top1", "top5", "views", "source")}
        published["comparable"] = c.dataset(r) == r.reference
    return {
        "model": s.name,
        "temporal": s.temporal,
        "order_aware": s.order_aware,
        "published": published,
        "view": shape_text(c.view_shape),
        "views": c.views,
        "gmacs_per_view": c.view_gmacs,
        "gmacs": c.gmacs(r.unit),
        "latency_ms": milliseconds,
        "params": c.entry["params"],
        "weights": weights,
        "licence": licence,
        "config": config,
        "options": (c.entry["stream_options"] or {}) if r.streaming else {},
        "reasons": list(_reasons(c, r, config)),
    }


def starting_config(c: Candidate, r: Request) -> str:
    """Returns the config to start from.

    For motion, a recipe for Something-Something v2 comes first, because it does not mirror clips. For few
    videos, one for UCF101 comes next. Then comes that of the published accuracy.
    """
    published = c.figure and c.figure["config"]
    key = lambda config: (_folder_key(config, r), config != published)  # noqa: E731
    return min(c.entry["configs"], key=key, default=f"{FALLBACK}:model={c.spec.name}")


def _folder_key(config: str, r: Request) -> int:
    folders = ["ssv2"] * (r.cue == "motion") + ["ucf101"] * r.few
    folder = config.partition("/")[0]
    return folders.index(folder) if folder in folders else len(folders)


def _reasons(c: Candidate, r: Request, config: str) -> Iterator[str]:
    s, figure, licence = c.spec, c.figure, c.weights[1]
    if r.cue == "motion":
        yield f"Its output depends on the order of frames: {s.temporal}."
    else:
        yield f"Temporal modeling: {s.temporal}."
    if not figure:
        yield "It has no published accuracy and ranks after the models that have one."
    elif not c.dataset(r):
        yield "The published accuracy is of whole clips, not of the form that streams, and does not count."
    elif figure["dataset"] != r.reference:
        yield f"An accuracy on {figure['dataset']} is not comparable with one on {r.reference}."
    if r.few:
        yield from _weights_reasons(c, r)
    if "NC" in licence:
        yield f"The license of its weights, {licence}, excludes commercial use."
    if r.gmacs is not None:
        yield f"{_number(c.gmacs(r.unit))} GMACs per {r.unit} are within the budget of {r.gmacs:g}."
    if r.streaming:
        yield "It runs frame by frame, with a state of constant size."
    if r.cue == "motion" and not config.startswith("ssv2/"):
        yield "Set data.flip=False in its config if mirroring changes your classes."
    if config.startswith(FALLBACK):
        yield "No recipe for it is included at full size; the config trains its tiny preset."


def _weights_reasons(c: Candidate, r: Request) -> Iterator[str]:
    level, trunk, masked = weights_level(c), backbone(c.spec), pretraining(c.spec)
    if level == 0:
        yield "Fine-tune its pretrained weights on your labeled videos."
    elif trunk:
        yield f"Start from the image weights of {trunk.name} ({trunk.weights}; {trunk.licence})."
    if masked:
        config = min(c.entry["pretraining_configs"], key=lambda name: _folder_key(name, r), default="")
        recipe = f" with {config}" if config else ""
        also = "You can also pretrain" if level == 0 else "Pretrain"
        yield f"{also} it on your own videos without labels ({masked}{recipe}), then fine-tune."
    if level == 2:
        yield "It has no pretrained weights and learns from your labeled videos alone."


def _notes(r: Request, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    if r.cue is None:
        yield "No cue was given (--cue): the models are ranked as for appearance."
    if r.videos is None:
        yield "The number of labeled videos was not given (--videos): pretrained weights do not count."
    if r.gmacs is None and r.latency is None:
        yield f"No budget was given (--gmacs, --latency): the cost per {r.unit} only breaks ties."
    comparable = [x["published"] for x in rows if x["published"] and x["published"]["comparable"]]
    if not comparable:
        yield f"None of these models has a published accuracy on {r.reference} that counts."
    if len({p["views"] for p in comparable}) > 1:
        yield (
            f"The accuracies on {r.reference} are of different views and pretraining, so small differences "
            "are not meaningful."
        )


def _within_latency(
    fitting: Sequence[Candidate], r: Request, log: Callable[[str], None]
) -> tuple[list[Candidate], dict[str, float], str]:
    """Times candidates in order until `r.top` of them are within the latency.

    Returns:
      those candidates, milliseconds by name, and a note on what was timed.

    Raises:
      UserError: none that was timed is within the latency.
    """
    limit = r.latency or math.inf
    rate = SAVING * latency.matmul_gmacs_per_second() / 1e3  # GMACs per millisecond
    least = {c.spec.name: (c.gmacs(r.unit) or 0.0) / rate for c in fitting}  # milliseconds
    possible = [c for c in fitting if least[c.spec.name] <= limit]
    found: list[Candidate] = []
    timed: dict[str, float] = {}
    for c in possible[:MEASURED]:
        timed[c.spec.name] = _milliseconds(c, r, log)
        found += [c] if timed[c.spec.name] <= limit else []
        if len(found) == r.top:
            break
    if not found:
        at_least, times = ("", timed) if timed else ("at least ", least)
        nearest = min(times, key=times.__getitem__)
        raise UserError(
            f"no model timed takes at most {limit:g} ms per {r.unit} ({len(timed)} of {len(fitting)} were "
            f"timed); the nearest is {nearest}, which takes {at_least}{times[nearest]:.4g} ms: raise "
            "--latency, or exclude costly models with --gmacs"
        )
    note = (
        f"{len(timed)} of {len(fitting)} models were timed, in the order of rank. "
        f"{len(fitting) - len(possible)} were excluded before, because their GMACs would take longer than "
        f"{limit:g} ms at {SAVING} times the throughput of a matrix product on this machine."
    )
    return found, timed, note


def _milliseconds(c: Candidate, r: Request, log: Callable[[str], None]) -> float:
    """Returns the measured milliseconds per `r.unit`; for a video, those of one view times their number."""
    options = c.figure["options"] if c.figure else {}
    views = c.views if r.unit == "video" else 1
    log(f"timing {c.spec.name}")
    if r.streaming:
        seconds = latency.step_seconds(c.spec.name, c.spec.input_shape, c.entry["stream_options"])
    else:
        seconds = views * latency.forward_seconds(c.spec.name, c.view_shape, options)
    log(f"{c.spec.name}: {1e3 * seconds:.4g} ms per {r.unit}")
    return 1e3 * seconds


def page(result: dict[str, Any]) -> str:
    """Formats the result of `pick` as text."""
    lines = [f"Models that fit: {result['fitting']}. Each {_and(result['required'])}.", "Ranked by"]
    lines += [f"   ({n}) {rule}" for n, rule in enumerate(result["ranked_by"], 1)]
    for n, x in enumerate(result["candidates"], 1):
        lines += ["", f"{n}. {x['model']}"]
        lines += [f"   {key:11}{text}" for key, text in _fields(x, result["unit"])]
        lines += [f"   {'' if i else 'why':11}{reason}" for i, reason in enumerate(x["reasons"])]
    if result["elsewhere"]:
        lines += ["", "First of the models with accuracies on other datasets, which are not comparable:"]
    for x in result["elsewhere"]:
        cost = f"{_number(x['gmacs'])} GMACs per {result['unit']}"
        lines.append(f"   {x['model']}: published {_accuracy(x['published'])}; {cost}")
    lines += ["", *result["notes"]] if result["notes"] else []
    return "\n".join(lines)


def _number(x: float | None) -> str:
    return "unknown" if x is None else f"{x:,.0f}" if x >= 1000 else f"{x:.4g}"


def _accuracy(published: dict[str, Any]) -> str:
    return (
        f"{published['top1']:g} top-1 on {published['dataset']}, views {published['views']} "
        f"({published['source']})"
    )


def _fields(x: dict[str, Any], unit: str) -> Iterator[tuple[str, str]]:
    published = x["published"]
    yield "published", _accuracy(published) if published else "no accuracy"
    if unit == "frame":
        cost = f"{_number(x['gmacs'])} GMACs per frame"
    else:
        cost = f"{_number(x['gmacs_per_view'])} GMACs per view of {x['view']}"
        if published and unit == "video":
            cost += f" x {x['views']} = {_number(x['gmacs'])} per video"
    yield "counted", f"{cost}; {x['params']:,} parameters"
    if x["latency_ms"] is not None:
        yield "measured", f"{_number(x['latency_ms'])} ms per {unit} on this machine, batch 1, float32"
    yield "weights", f"{x['weights']} ({x['licence']})" if x["weights"] else "none known"
    yield "config", x["config"] + "".join(f" --config.model.options.{k}={v}" for k, v in x["options"].items())
