"""The cost of a test view of a saved result."""

import json
from collections.abc import Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from vidjax import files
from vidjax.analysis.macs import model_cost
from vidjax.config import restore
from vidjax.data import streams
from vidjax.errors import UserError
from vidjax.evaluation import create_evals
from vidjax.evaluation.metrics import MetricsEval
from vidjax.train.experiment import create_parts


def view_gmacs(config: ConfigDict, class_names: Sequence[str], name: str | None = None) -> float:
    """Returns the multiply-adds of the model for one test view, in 1e9.

    Decoding, optical flow and the extraction of cached features are not counted.

    Args:
      config: a resolved config.
      class_names: of the model.
      name: of the evaluation, whose views may have another size than the training clips; None for
        `checkpoint.best`.

    Raises:
      UserError: the model does not exist, or does not accept the views.
    """
    evaluation = create_evals(config.evals)[name or config.checkpoint.best]
    data = evaluation.data(config) if isinstance(evaluation, MetricsEval) else config.data
    model, task = create_parts(config, class_names)
    clip = task.inputs.abstract(streams.zeros(data, task.inputs.streams))
    return model_cost(model, jax.tree.map(lambda x: x.shape[1:], clip)).macs / 1e9


def config_of(result: epath.Path) -> tuple[ConfigDict, str] | None:
    """Returns the config that made a result.npz of `vidjax eval` or `train`, and the name of the evaluation.

    The config is in evaluation.json or config.json of the folder, or of the folder above if the evaluation is
    not `checkpoint.best`; None if there is none, as for combined results.

    Raises:
      UserError: the file cannot be read, or its config is not valid.
    """
    folder = files.absolute(result).parent
    for place, name in ((folder, None), (folder.parent, folder.name)):
        for file, key in (("evaluation.json", "config"), ("config.json", None)):
            path = place / file
            if not path.exists():
                continue
            try:
                saved = json.loads(path.read_text())
                saved = saved.get(key) if key else saved
            except (OSError, ValueError, AttributeError) as e:
                raise UserError(f"cannot read {path}: {e}") from None
            if saved is None:  # written by an earlier version
                continue
            config = restore(saved)
            if name is None or name in config.evals:
                return config, name or config.checkpoint.best
    return None
