"""Evaluation of streaming models frame by frame, as a cell of a table."""

import dataclasses

import jax
import numpy as np

from experiments.cells import Cell, Lab, Outcome, Train
from vidjax.checkpoint_io import find_checkpoint, load_variables
from vidjax.config import restore
from vidjax.data.pipeline import eval_batches
from vidjax.tasks.results import ClassificationResult
from vidjax.train.experiment import build


@dataclasses.dataclass(frozen=True)
class Streamed(Cell):
    """The test clips of trained models, given frame by frame.

    The result is that of the last frame of a clip, so it equals the evaluation of whole clips up to rounding.

    Attributes:
      of: the trained models, of a class with `init_state` and `step`.
    """

    of: Train

    def key(self, lab: Lab) -> str:
        return self.of.key(lab)

    def commands(self, lab: Lab) -> list[str]:
        return [*self.of.commands(lab), "vidjax predict VIDEO --checkpoint=WORKDIR --stream"]

    def run(self, lab: Lab) -> list[Outcome]:
        return lab.gather([lambda o=o: self.stream(lab, o) for o in lab.solve(self.of).result()])

    def stream(self, lab: Lab, trained: Outcome) -> Outcome:
        folder = lab.folder("streamed", [trained.folder.name])
        if not (folder / "result.npz").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            streamed(trained).save(folder / "result.npz")
        return Outcome(folder, trained.seed, trained.about)


def streamed(trained: Outcome) -> ClassificationResult:
    """Evaluates a trained model frame by frame, one clip of `evals.val` at a time."""
    variables, meta = load_variables(find_checkpoint(trained.folder))
    exp = build(restore(meta["config"]))
    model, task, config, views = exp.model, exp.task, exp.config, exp.evals["val"]
    source = exp.source(views.split)
    batches = eval_batches(source, views.data(config), config.batch, views.clips, views.crops, **task.reading)

    @jax.jit
    def last(variables, clips):
        frames = task.inputs({"rgb": clips})

        def step(state, frame):
            (logits, _), state = model.apply(variables, state, frame, method="step")
            return state, logits

        state = model.init_state(len(clips), clips.shape[2:])
        return jax.lax.scan(step, state, frames.swapaxes(0, 1))[1][-1]

    rows = {}
    for batch in batches:
        clips = batch["inputs"]["rgb"]
        logits = np.stack([last(variables, view) for view in clips.swapaxes(0, 1)], 1)
        rows |= {int(i): x for i, x, ok in zip(batch["index"], logits, batch["mask"]) if ok}
    records = [source[i] for i in sorted(rows)]
    labels = np.array([r.target.label for r in records])
    logits = np.stack([rows[i] for i in sorted(rows)])
    return ClassificationResult([r.id for r in records], labels, logits, source.class_names)
