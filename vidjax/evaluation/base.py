"""The contract of an evaluation."""

import abc
import dataclasses
from typing import Any, ClassVar

from etils import epath

from vidjax.options import option
from vidjax.tasks.base import Result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval(abc.ABC):
    """One evaluation of a config. A subclass in a module of this package is registered by `type`.

    Attributes:
      type: name of the kind in configs.
      has_metrics: whether the results have metrics, by which checkpoints can be ranked.
      split: split of the dataset; None uses `data.eval_split`.
      every: epochs between evaluations during training; 0 evaluates only at the end.
      batch: videos per batch; None uses `batch` of the config.
    """

    type: ClassVar[str]
    has_metrics: ClassVar[bool] = True

    split: str | None = option(None, kind=str)
    every: float = option(1.0, 0.0, 1e6)
    batch: int | None = option(None, 1, 2**24)

    def prepare(self, exp: Any) -> None:
        """Raises `UserError` if the evaluation is impossible, before training starts."""
        exp.source(self.split)

    @abc.abstractmethod
    def run(self, exp: Any, variables: Any, folder: epath.Path, step: int) -> Result:
        """Evaluates. Every host must call this method.

        Args:
          exp: the `vidjax.train.experiment.Experiment`.
          variables: arrays on the mesh of the experiment.
          folder: output folder, to which only host 0 writes.
          step: training step of the variables.

        Raises:
          UserError: too many unreadable videos, or the outputs are not finite.
          Stopped: a host received a signal.
        """
