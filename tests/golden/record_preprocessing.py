"""Records outputs of torchvision and pytorchvideo transforms on random clips, in preprocessing/.

  python tests/golden/record_preprocessing.py

Requires PyTorch, torchvision and pytorchvideo. The clips are generated from a seed (`clip`), and samples of
the outputs are stored.
"""

import importlib.metadata
import json
import pathlib
import sys

import numpy as np
from weights import sample

# Maps our models to torchvision weights. Frame sizes include odd, wide, tall, small and large ones.
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
    """Returns a uint8 clip [2, height, width, 3] of gradients with noise."""
    rng = np.random.RandomState(height)
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([255 * x / width, 255 * y / height, (x + y) % 256], -1)
    return np.clip(slopes + rng.uniform(-60, 60, (2, height, width, 3)), 0, 255).astype(np.uint8)


def torchvision_presets(frames) -> dict[str, np.ndarray]:
    """Applies the transforms of `WEIGHTS`: {"model height x width": float32 [T, H, W, C]}."""
    from torchvision.models import video

    transforms = {n: getattr(video, w).KINETICS400_V1.transforms() for n, w in WEIGHTS.items()}
    return {
        f"{name} {height}x{width}": transform(frames(height, width)).permute(1, 2, 3, 0)
        for name, transform in transforms.items()
        for height, width in SIZES
    }


def pytorchvideo_crops(frames) -> dict[str, np.ndarray]:
    """Returns three test crops of 256 pixels: normalized, then scaled and cropped, as in PySlowFast."""
    import torchvision.transforms._functional_tensor as moved

    sys.modules.setdefault("torchvision.transforms.functional_tensor", moved)  # expected by pytorchvideo
    from pytorchvideo.transforms.functional import short_side_scale, uniform_crop

    out = {}
    for height, width in SIZES:
        video = ((frames(height, width).float() / 255 - 0.45) / 0.225).transpose(0, 1)  # [C, T, H, W]
        for i in range(3):
            crop = uniform_crop(short_side_scale(video, 256), 256, i)
            out[f"{height}x{width} {i}"] = crop.permute(1, 2, 3, 0)
    return out


def main() -> None:
    import oracles  # noqa: F401  declares the operators that the CPU build lacks
    import torch

    frames = lambda h, w: torch.from_numpy(clip(h, w)).permute(0, 3, 1, 2)  # noqa: E731
    for package, record in (("torchvision", torchvision_presets), ("pytorchvideo", pytorchvideo_crops)):
        arrays = {k: sample(v.numpy(), SAMPLES) for k, v in record(frames).items()}
        made_with = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in (package, "torch"))
        path = pathlib.Path(__file__).with_name("preprocessing") / f"{package}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, about=json.dumps({"made_with": made_with}), **arrays)
        print(f"{path.name}: {len(arrays)} outputs, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
