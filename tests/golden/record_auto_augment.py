"""Records the operations and policies of timm's RandAugment and AutoAugment in auto_augment.json.

  python tests/golden/record_auto_augment.py

Requires timm. For each operation, level, sign, interpolation and image of `images` it stores the operation's
arguments and a hash of the pixels, or no hashes where Pillow 13 rejects the arguments (posterizing to less
than one bit); for each policy its operations, probabilities, levels and weights.
"""

import hashlib
import json
import math
import pathlib
import random
from unittest import mock

import numpy as np
import PIL
from PIL import Image

LEVELS = (0.0, 1.5, 3.0, 5.0, 7.3, 10.0, 13.0)
FILL = (124, 116, 104)
POLICIES = (
    "original", "originalr-mstd0.5", "v0", "v0r", "3a-mstd0.3", "rand-m7-n4-mstd0.5-inc1",
    "rand-m9-n3-mstd0.5", "rand-m15-n2-mmax30-p0.7", "rand-m9-mstd101-inc1", "rand-mstd1-tweights",
    "rand-m8-inc1-t3a", "rand-t3aw-n5",
)  # fmt: skip


def images() -> list[np.ndarray]:
    """Returns an image of noise and one of low contrast with gradients, uint8 [25, 36, 3]."""
    rng = np.random.RandomState(0)
    y, x = np.mgrid[:25, :36]
    slopes = np.stack([40 + 3 * x, 200 - 4 * y, 90 + x + y], -1) + rng.randint(0, 9, (25, 36, 3))
    return [rng.randint(0, 256, (25, 36, 3)).astype(np.uint8), slopes.astype(np.uint8)]


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def main() -> None:
    import timm
    from timm.data import auto_augment as aa

    operations = []
    methods = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    for name in aa.NAME_TO_OP:
        if name in ("TranslateX", "TranslateY"):  # part of no policy
            continue
        for level in LEVELS:
            for sign, number in ((1, 0.1), (-1, 0.9)):
                with mock.patch.object(random, "random", lambda number=number: number):
                    make = aa.LEVEL_TO_ARG[name]
                    arguments = list(make(level, {})) if make else []
                for interpolation, method in methods.items():
                    values = dict(fillcolor=FILL, resample=method)
                    try:
                        with mock.patch.object(random, "uniform", lambda a, b: (a + b) / 2):
                            outs = [
                                aa.NAME_TO_OP[name](Image.fromarray(image), *arguments, **values)
                                for image in images()
                            ]
                    except ValueError:
                        outs = []
                    hashes = [digest(np.asarray(out)) for out in outs]
                    operations.append([name, level, sign, interpolation, arguments, hashes])

    policies = {}
    for text in POLICIES:
        if text.startswith("rand"):
            made = aa.rand_augment_transform(text, {})
            choices, count = [[op] for op in made.ops], made.num_layers
            weights = None if made.choice_weights is None else list(made.choice_weights)
        else:
            choices, count, weights = aa.auto_augment_transform(text, {}).policy, 1, None
        steps = [
            [
                [op.name, op.prob, op.magnitude, "inf" if math.isinf(op.magnitude_std) else op.magnitude_std,
                 op.magnitude_max or 10]
                for op in ops
            ]
            for ops in choices
        ]  # fmt: skip
        policies[text] = {"steps": steps, "count": count, "weights": weights}

    versions = {"timm": timm.__version__, "pillow": PIL.__version__}
    saved = {"versions": versions, "fill": FILL, "operations": operations, "policies": policies}
    text = json.dumps(saved, separators=(",", ":")).replace(',["', ',\n["').replace(',"rand', ',\n"rand')
    pathlib.Path(__file__).with_name("auto_augment.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
