"""Reference implementations to record from, a file per source and family. All of them need PyTorch.

Each file fills `CASES`, {name of our model or, with `Case.model`, of the recording: Case}.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

# The CPU build of torchvision without its operators: detection's are declared so that the import succeeds.
_library = torch.library.Library("torchvision", "DEF")
for _op in ("nms", "qnms"):
    _library.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def channels_last(x: torch.Tensor) -> np.ndarray:
    """[B, C, ...] -> [B, ..., C]."""
    return np.moveaxis(x.numpy(), 1, -1)


def channels_first(x: np.ndarray) -> torch.Tensor:
    """[B, ..., C] -> [B, C, ...]."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


@dataclasses.dataclass(frozen=True)
class Case:
    """How one of our models is compared with its reference.

    Attributes:
      build: number of classes -> the reference in evaluation mode.
      input_shape: (B, T, H, W, C) or (B, H, W, C) of the recorded input; small.
      stages: the reference's module -> our endpoint, for the outputs that are compared on the way.
      live: (classes, input shape) pairs that `live.py` tries besides.
      options: fields of our model, where they are not the preset's.
      to_input: our input -> the reference's.
      call: (reference, input) -> logits.
      to_ours: (endpoint, its output) -> an array laid out as ours.
      package: whose version is recorded.
      full: (classes, frames, size) -> the reference at full size for timing, where `build` makes a small one.
      tolerance: relative to the largest value; 1e-5 unless float32 cannot, as the case says.
      model: the registered name, where the case's is another.
    """

    build: Callable[[int], torch.nn.Module]
    input_shape: Sequence[int]
    stages: Mapping[str, str]
    live: Sequence[tuple[int, Sequence[int]]] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    to_input: Callable[[np.ndarray], Any] = channels_first
    call: Callable[[torch.nn.Module, Any], torch.Tensor] = lambda model, x: model(x)
    to_ours: Callable[[str, torch.Tensor], np.ndarray] = lambda stage, x: channels_last(x)
    package: str = "torchvision"
    full: Callable[[int, int, int], torch.nn.Module] | None = None
    tolerance: float = 1e-5
    model: str = ""


def cases() -> dict[str, Case]:
    """All cases of all files whose package is installed."""
    found = {}
    for file in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
        try:
            module = importlib.import_module(f"oracles.{file.stem}")
        except ImportError as e:
            print(f"{file.stem}: left out, {e}")
            continue
        found |= module.CASES
    return found
