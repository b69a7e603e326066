"""Evaluates a classifier on the test views of videos."""

from typing import Any

import jax
from etils import epath

from vidjax.data.pipeline import eval_batches
from vidjax.tasks.results import ClassificationResult, collect
from vidjax.train.experiment import Experiment, evaluation_data


def evaluate_variables(
    exp: Experiment, variables: Any, report_dir: epath.PathLike | None = None
) -> ClassificationResult:
    """Evaluates `variables` on the evaluation split of an experiment. Every host must call this function.

    Args:
      exp: the experiment.
      variables: arrays on the mesh of the experiment.
      report_dir: folder for bad_videos.jsonl, the list of unreadable videos.

    Raises:
      UserError: too many unreadable videos; see also `vidjax.tasks.results.collect`.
      Stopped: a host received a signal.
    """
    evals, source = exp.config.evals, exp.eval_source
    batches = eval_batches(
        source,
        evaluation_data(exp.config),
        exp.engine.batch_size(evals.batch or exp.config.batch),
        evals.clips,
        evals.crops,
        host=jax.process_index(),
        hosts=exp.engine.hosts,
        report_dir=report_dir,
    )
    ids = [source[i].id for i in range(len(source))]
    return collect(exp.engine.run(variables, batches), source.class_names, ids)
