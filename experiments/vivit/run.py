"""The four models of ViViT: full attention, factorized encoder, factorized attention, factorized heads.

  python experiments/vivit/run.py --scale cpu

Arnab et al., arXiv:2103.15691, Table 2. The cells are those of experiments/attention_schemes.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import vidjax
from experiments.attention_schemes.run import cell, facts, full
from experiments.small import MOTION
from experiments.table import Column, Row, Table, main, top1

MODELS = {
    "1: full attention": "vivit_b_16x2",
    "2: factorized encoder": "vivit_b_16x2_fe",
    "3: factorized self-attention": "vivit_b_16x2_fsa",
    "4: factorized dot product": "vivit_b_16x2_fdp",
}


def row(label: str, model: str) -> Row:
    published = next(r for r in vidjax.spec(model).results if r.dataset == "Kinetics-400")
    return Row(
        label,
        {"motion": cell(model)},
        {"kinetics400": full(model)},
        lambda: {"published, Kinetics-400": published.top1} | facts(model),
    )


TABLE = Table(
    pathlib.Path(__file__).parent,
    [row(*each) for each in MODELS.items()],
    columns=MOTION,
    full=(Column("Kinetics-400 top-1", "kinetics400", top1),),
    quoted=list(MODELS),
)

if __name__ == "__main__":
    main(TABLE)
