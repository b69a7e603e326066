"""Records the boxes of timm's RandomErasing and CutMix in erasing.json.

  python tests/golden/record_erasing.py

Requires timm. `erasing` holds quantiles of the boxes of single images, and the share of images erased;
`cutmix` holds boxes of given draws.
"""

import json
import pathlib
import random
from unittest import mock

import numpy as np

SIZES = ((48, 64), (30, 90))
COUNTS = (1, 3)
QUANTILES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
IMAGES = 20_000
PROBABILITY = 0.75


def main() -> None:
    import torch
    from timm.data.mixup import cutmix_bbox_and_lam
    from timm.data.random_erasing import RandomErasing

    random.seed(0)
    erasing = []
    for h, w in SIZES:
        for count in COUNTS:
            erase = RandomErasing(PROBABILITY, mode="const", max_count=count, device="cpu")
            boxes, erased = [], 0
            for _ in range(IMAGES):
                seen = []

                class Recorder:
                    def __setitem__(self, where, value, seen=seen):
                        _, rows, columns = where
                        seen.append((rows.start, columns.start, rows.stop - rows.start,
                                     columns.stop - columns.start))  # fmt: skip

                erase._erase(Recorder(), 3, h, w, torch.float32)
                boxes += seen
                erased += bool(seen)
            quantiles = np.quantile(boxes, QUANTILES, axis=0).T.round(2).tolist()
            erasing.append(
                {"size": (h, w), "count": count, "erased": erased / IMAGES, "boxes": len(boxes) / IMAGES,
                 "quantiles": dict(zip(("top", "left", "height", "width"), quantiles))}
            )  # fmt: skip

    rng, cutmix = np.random.RandomState(0), []
    for h, w in SIZES:
        for _ in range(40):
            y, x, lam = rng.randint(h), rng.randint(w), round(rng.uniform(), 3)
            with mock.patch.object(np.random, "randint", mock.Mock(side_effect=[y, x])):
                box, corrected = cutmix_bbox_and_lam((3, h, w), lam)
            cutmix.append([[h, w], [y, x], lam, [int(n) for n in box], corrected])

    saved = {"probability": PROBABILITY, "levels": QUANTILES, "erasing": erasing, "cutmix": cutmix}
    pathlib.Path(__file__).with_name("erasing.json").write_text(json.dumps(saved) + "\n")


if __name__ == "__main__":
    main()
