"""Records the loss and predictions of VideoMAEForPreTraining of Hugging Face. Requires PyTorch.

  python tests/golden/record_mae.py

Writes loss/videomae_pretrain.npz. Weights, clip and mask are sampled from seeds; the reference runs in
float64.
"""

import importlib.metadata
import json
import pathlib

import numpy as np
import torch
from record import load_drawn
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from weights import draw_input, sample

SHAPE, SEED = (2, 4, 48, 64, 3), 3
FIELDS = dict(
    hidden_size=192,
    num_attention_heads=3,
    num_hidden_layers=3,
    intermediate_size=768,
    decoder_hidden_size=96,
    decoder_num_attention_heads=3,
    decoder_num_hidden_layers=2,
    decoder_intermediate_size=384,
    num_frames=SHAPE[1],
    image_size=list(SHAPE[2:4]),
)


def tube(seed: int) -> np.ndarray:
    """Returns a tube mask of nine of the twelve positions in both slices, bool [B, N]."""
    rng = np.random.RandomState(seed)
    places = np.stack([rng.permutation(12) < 9 for _ in range(SHAPE[0])])
    return np.tile(places, (1, SHAPE[1] // 2))


def main() -> None:
    for encoder_norm in (False, True):
        config = VideoMAEConfig(norm_pix_loss=True, use_mean_pooling=not encoder_norm, **FIELDS)
        model = VideoMAEForPreTraining(config).eval()
        load_drawn(model, SEED)
        shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
        video = torch.from_numpy(draw_input(SHAPE, SEED).astype(np.float64).transpose(0, 1, 4, 2, 3).copy())
        with torch.no_grad():
            out = model.double()(video, bool_masked_pos=torch.from_numpy(tube(SEED)))
        versions = (f"{p} {importlib.metadata.version(p)}" for p in ("transformers", "torch"))
        about = {
            "made_with": ", ".join(versions),
            "shapes": shapes,
            "seed": SEED,
            "input_shape": SHAPE,
        }
        arrays = {"loss": out.loss.numpy(), "logits": sample(out.logits.numpy()), "mask": tube(SEED)}
        name = "videomae_pretrain" + ("_norm" if encoder_norm else "")
        path = pathlib.Path(__file__).parent / "loss" / f"{name}.npz"
        np.savez_compressed(path, about=json.dumps(about), **arrays)
        print(path.name, float(out.loss), sorted(k for k in shapes if "layer.0" not in k)[:40])


if __name__ == "__main__":
    main()
