"""Records what the transforms of torchvision's video weights make of random clips, as preprocessing.npz.

  python tests/golden/record_preprocessing.py

Needs PyTorch and torchvision. The clips are drawn from a seed (`clip`); of the outputs, samples are kept.
"""

import importlib.metadata
import json
import pathlib

import numpy as np
from weights import sample

# Our model: torchvision's weights. Frames of odd sizes, wide and tall, larger and smaller than the resize.
WEIGHTS = {
    "r3d_18": "R3D_18_Weights",
    "s3d": "S3D_Weights",
    "mvit_v1_b_16x4": "MViT_V1_B_Weights",
    "mvit_v2_s_16x4": "MViT_V2_S_Weights",
    "swin3d_t": "Swin3D_T_Weights",
}
SIZES = ((95, 131), (333, 301), (540, 961))
SAMPLES = 4096


def clip(height: int, width: int) -> np.ndarray:
    """A uint8 clip [2, height, width, 3] of noise upon slopes."""
    rng = np.random.RandomState(height)
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([255 * x / width, 255 * y / height, (x + y) % 256], -1)
    return np.clip(slopes + rng.uniform(-60, 60, (2, height, width, 3)), 0, 255).astype(np.uint8)


def main() -> None:
    import oracles  # noqa: F401  declares the operators that the CPU build lacks
    import torch
    from torchvision.models import video

    arrays = {}
    for name, weights in WEIGHTS.items():
        transform = getattr(video, weights).KINETICS400_V1.transforms()
        for height, width in SIZES:
            frames = torch.from_numpy(clip(height, width)).permute(0, 3, 1, 2)
            out = transform(frames).permute(1, 2, 3, 0).numpy()  # [C, T, H, W] -> [T, H, W, C]
            arrays[f"{name} {height}x{width}"] = sample(out, SAMPLES)
    made_with = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torchvision", "torch"))
    path = pathlib.Path(__file__).with_name("preprocessing") / "torchvision.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, about=json.dumps({"made_with": made_with}), **arrays)
    print(f"{len(arrays)} outputs, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
