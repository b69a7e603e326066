"""Evaluation of a classifier on the test views of its videos."""

from typing import Any

import jax
from etils import epath

from vidjax.data.pipeline import eval_batches
from vidjax.evals.classification import ClassificationResult, collect
from vidjax.train.experiment import Experiment, evaluation_data


def evaluate_variables(
    exp: Experiment, variables: Any, report_dir: epath.PathLike | None = None
) -> ClassificationResult:
    """Evaluates `variables` on the evaluation videos of an experiment; on several hosts, each calls it.

    Args:
      exp: the experiment.
      variables: on its mesh.
      report_dir: where videos that cannot be read are listed.

    Raises:
      UserError: see `vidjax.evals.classification.collect`; too many videos that cannot be read.
      Stopped: a host was asked to stop.
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
