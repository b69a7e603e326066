"""Masked autoencoders: pretrained or from scratch, masking, decoder depth, length of pretraining, labels.

  VIDJAX_DATA=/data python experiments/mae/run.py --scale cpu
  VIDJAX_DATA=/data python experiments/mae/run.py --scale full     # ViT-B, Kinetics-400

VideoMAE, arXiv:2203.12602, Tables 1 and 2. A small ViT is pretrained without labels and fine-tuned on 240
labeled motions, unless the row changes it.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from typing import Any

from experiments.cells import Train
from experiments.small import VALIDATED
from experiments.table import Column, Row, Table, main, top1

TUNE = {"evals.tune": {"type": "metrics", "split": "val", "every": 0.0}}
LABELS = 240


def tuned(pretraining: dict[str, Any] | None, labels: int = LABELS) -> dict[str, Train]:
    """Returns the cell of a fine-tuned model; `pretraining` are overrides, None trains from scratch."""
    start = None
    if pretraining is not None:
        start = Train("configs/synthetic_motion/videomae_pretrain.py", pretraining, tuned=False, seeds=(0,))
    config = f"configs/synthetic_motion/videomae_finetune.py:labels={labels}"
    return {"motion": Train(config, TUNE, start=start)}


def weizmann(pretrained: bool) -> dict[str, Train]:
    start = Train("configs/weizmann/videomae_pretrain.py", tuned=False, seeds=(0,)) if pretrained else None
    validation = {"data.options.val_groups": VALIDATED, "data.eval_split": "val"}
    return {"weizmann": Train("configs/weizmann/videomae_finetune.py", start=start, validation=validation)}


def full(pretraining: dict[str, Any] | None, finetuning: dict[str, Any] | None = None) -> dict[str, Train]:
    start = None
    if pretraining is not None:
        start = Train("configs/kinetics400/videomae_b_pretrain.py", pretraining, tuned=False)
    config = "configs/kinetics400/videomae_b_finetune.py"
    return {"kinetics400": Train(config, finetuning or {}, start=start, tuned=False)}


def masked(label: str, epochs: float = 1.0, **fields: Any) -> Row:
    """Returns a row that changes fields of the pretrained model, or the length of pretraining."""
    changes = {f"model.options.{k}": v for k, v in fields.items()}
    small = changes | ({"epochs": 10.0 * epochs} if epochs != 1 else {})
    paper = {**changes, "epochs": 800.0 * epochs}
    return Row(label, tuned(small), full(paper))


TABLE = Table(
    pathlib.Path(__file__).parent,
    (
        Row("from scratch", tuned(None) | weizmann(False), full(None)),
        Row("frame mask 0.75, decoder of 1 layer", tuned({}) | weizmann(True), full({})),
        masked("ratio 0.5", mask_ratio=0.5),
        masked("ratio 0.25", mask_ratio=0.25),
        masked("tube mask, 0.75", mask="tube"),
        masked("tube mask, 0.9", mask="tube", mask_ratio=0.9),
        masked("random mask, 0.75", mask="random"),
        masked("random mask, 0.9", mask="random", mask_ratio=0.9),
        masked("decoder of 2 layers", decoder_depth=2),
        masked("decoder of 4 layers", decoder_depth=4),
        masked("a quarter of the epochs", epochs=0.25),
        masked("half of the epochs", epochs=0.5),
        Row("from scratch, 120 labels", tuned(None, 120)),
        Row("pretrained, 120 labels", tuned({}, 120)),
        Row("from scratch, 960 labels", tuned(None, 960)),
        Row("pretrained, 960 labels", tuned({}, 960)),
    ),
    columns=(
        Column("motion top-1", "motion", top1, 1 / 12),
        Column("Weizmann top-1", "weizmann", top1, 0.1),
    ),
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    smoke=("frame mask 0.75, decoder of 1 layer",),
    first="pretraining",
    quoted=("from scratch", "frame mask 0.75, decoder of 1 layer", "tube mask, 0.9"),
)

if __name__ == "__main__":
    main(TABLE)
