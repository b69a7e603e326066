"""The model registry: names, constructors and published figures of all models."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidjax.errors import UserError, unknown
from vidjax.sharding import FSDP

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
# Flow is uint8 centered at 128 (see vidjax.flow); after normalization, 1 is `data.flow.bound` pixels.
FLOW_MEAN = (128 / 255,) * 2
FLOW_STD = (127 / 255,) * 2

# Spellings of `Result.dataset`.
DATASETS = (
    "ImageNet",
    "Kinetics-400",
    "Kinetics-600",
    "Kinetics-710",
    "Something-Something v2",
    "Sports-1M",
    "UCF101",
)

Shape = tuple[int, ...]
InputShape = Shape | Mapping[str, Shape]  # of a single input, or of each stream


@dataclasses.dataclass(frozen=True)
class Result:
    """A published accuracy in percent, with its view protocol."""

    dataset: str  # one of DATASETS
    top1: float
    top5: float | None
    views: str  # "clips x crops", e.g. "10x3"
    source: str  # paper and table, or the repository's model zoo


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Metadata of a registered model. The model zoo table and the registry tests are generated from it.

    Attributes:
      name: registered name, made of family, variant and frames x stride.
      family: name of the model family.
      module: the linen class; `preset` holds its fields at full size.
      tiny: fields that replace those of `preset` in the tiny preset used by tests and smoke runs.
      input_shape: shape of one input without the batch axis: (T, H, W, C), with C = 2 for optical flow;
        (H, W, C) for an image model; a dict of shapes, {"rgb": …, "flow": …}, for a model with several
        streams; (N, D), tokens by width, for a probe of cached features.
      tiny_input_shape: the same for the tiny preset.
      num_classes: number of classes of the published weights, and the default.
      stride, fps: frames from one sampled frame to the next, and the frame rate of the video that `stride`
        refers to (None if not published). Together they give the duration of a clip.
      temporal: short description of the temporal modeling.
      order_aware: whether the output depends on the order of frames.
      mean, std: normalization per channel, for pixels in [0, 1]; dicts for several streams.
      params: parameter count of the reference at `num_classes`; None if not published.
      gmacs: 1e9 multiply-adds of one view at `input_shape`; None if not published.
      results: published accuracies.
      weights, licence: where the weights of the model zoo are from, and their license; the files of all
        origins are listed by `vidjax.convert.published`.
      inflates: the image model with the same submodules whose weights can be inflated to initialize this one.
      task: "classify"; "pretrain" for a self-supervised model without logits; or "probe" for a classifier of
        another model's features.
      rules: placement of the parameters on a mesh, see `vidjax.sharding.state_shardings`.
    """

    name: str
    family: str
    module: type[nn.Module]
    preset: Mapping[str, Any]
    tiny: Mapping[str, Any]
    input_shape: InputShape
    tiny_input_shape: InputShape
    paper: str
    year: int
    arxiv: str
    temporal: str
    order_aware: bool
    num_classes: int = 400
    stride: float = 1.0
    fps: float | None = None
    mean: tuple[float, ...] | Mapping[str, tuple[float, ...]] = KINETICS_MEAN
    std: tuple[float, ...] | Mapping[str, tuple[float, ...]] = KINETICS_STD
    params: int | None = None
    gmacs: float | None = None
    results: tuple[Result, ...] = ()
    weights: str = ""
    licence: str = ""
    inflates: str = ""
    task: str = "classify"
    rules: tuple[tuple[str, Any], ...] = FSDP

    @property
    def streams(self) -> tuple[str, ...]:
        """The modalities of the input, see `vidjax.data.streams`."""
        if isinstance(self.input_shape, Mapping):
            return tuple(self.input_shape)
        if len(self.input_shape) == 2:
            return ("features",)
        return ("flow",) if self.input_shape[-1] == 2 else ("rgb",)


_REGISTRY: dict[str, ModelSpec] = {}


def register_model(spec: ModelSpec) -> None:
    """Registers a model.

    Raises:
      ValueError: the name is taken, or a preset sets an unknown field of the module.
    """
    if spec.name in _REGISTRY:
        raise ValueError(f"model name registered twice: {spec.name}")
    stray = ({*spec.preset} | {*spec.tiny}) - fields(spec.module)
    if stray:
        raise ValueError(f"{spec.name}: not fields of {spec.module.__name__}: {sorted(stray)}")
    _REGISTRY[spec.name] = spec


def fields(module: type[nn.Module]) -> set[str]:
    """Returns the names of the configurable fields of a linen class."""
    return {f.name for f in dataclasses.fields(module)} - {"parent", "name"}


def _defaults(module: type[nn.Module]) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(module)}


MOST_CLASSES = 2**24
# Closed ranges of the options whose name has this word in it, in every model.
_OPTION_RANGES = {"drop": (0.0, 0.999), "bn_groups": (1, 2**20)}
_KINDS = (bool, (int, float), str, (tuple, list))  # an option must be of the same kind as its default


def list_models(pattern: str = "*") -> list[str]:
    """Returns the registered names that match a shell pattern, in alphabetical order."""
    return sorted(fnmatch.filter(_REGISTRY, pattern))


def spec(name: str) -> ModelSpec:
    """Returns the `ModelSpec` of a registered name.

    Raises:
      UserError: unknown name; the message suggests the closest ones.
    """
    if name not in _REGISTRY:
        raise unknown("model", name, _REGISTRY)
    return _REGISTRY[name]


def model_streams(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the modalities of a model's input; those without a trunk take cached features."""
    return ("features",) if options.get("trunk", "") is None else spec(name).streams


def dummy_input(
    shape: InputShape,
    batch: int = 1,
    make: Callable[..., Any] = jax.ShapeDtypeStruct,
    dtype: Any = jnp.float32,
) -> Any:
    """Returns `make((batch, *shape), dtype)`, an abstract input by default; a dict if `shape` is a dict."""
    if isinstance(shape, Mapping):
        return {stream: make((batch, *s), dtype) for stream, s in shape.items()}
    return make((batch, *shape), dtype)


def shape_text(shape: InputShape) -> str:
    """Formats a shape as "16x112x112x3", or "rgb 1x224x224x3, flow 10x224x224x2"."""
    if isinstance(shape, Mapping):
        return ", ".join(f"{stream} {shape_text(s)}" for stream, s in shape.items())
    return "x".join(map(str, shape))


def create_model(
    name: str, num_classes: int | None = None, *, tiny: bool = False, **overrides: Any
) -> nn.Module:
    """Builds a registered model.

    Args:
      name: a registered name, see `list_models`.
      num_classes: number of classes; None uses the published one. 0 removes the classifier, so that the model
        returns pooled features [B, D] instead of logits.
      tiny: whether to build the tiny preset.
      **overrides: fields of the linen class that override the preset.

    Returns:
      A linen module: `logits, endpoints = model.apply(variables, video, train=False)`.

    Raises:
      UserError: unknown name or field, or a negative number of classes.
    """
    s = spec(name)
    if num_classes is None:
        num_classes = s.num_classes
    if num_classes < 0:
        raise UserError(f"num_classes cannot be negative, got {num_classes}")
    if num_classes > MOST_CLASSES:
        raise UserError(f"num_classes must be at most {MOST_CLASSES:,}, got {num_classes}")
    for key in overrides:
        if key not in fields(s.module):
            raise unknown(f"option of {name}", key, fields(s.module))
        default = {**_defaults(s.module), **s.preset}.get(key)
        kinds = next((k for k in _KINDS if isinstance(default, k)), None)
        if kinds and overrides[key] is not None and not isinstance(overrides[key], kinds):
            raise UserError(
                f"option {key} of {name} must have the type of {default!r}, got {overrides[key]!r}"
            )
        low, high = next((r for word, r in _OPTION_RANGES.items() if word in key), (-math.inf, math.inf))
        if isinstance(overrides[key], int | float) and not low <= overrides[key] <= high:
            raise UserError(f"option {key} of {name} must be from {low} to {high}, got {overrides[key]}")
    preset = {**s.preset, **(s.tiny if tiny else {}), **overrides}
    return s.module(num_classes=num_classes, **preset)
