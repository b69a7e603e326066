"""Times a masked pretraining step on the CPU, compared with Hugging Face and with an encoder on all tokens.

    python benchmarks/pretrain_step.py videomae_b_pretrain --batch 2

A step computes the loss for one mask and all gradients, in float32 with random weights. The first comparison
is with VideoMAEForPreTraining, the second with a training step of the same encoder on all tokens, without
decoder; its ratio is the saving from masking, including the cost of the decoder. Without PyTorch and
transformers, only vidjax is timed. The two sides alternate as described in train_step.py.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from train_step import cores, environment, race

from vidjax.layers.preprocess import model_inputs, normalize
from vidjax.models import create_model, spec
from vidjax.tasks import create_task
from vidjax.tasks.masked_autoencoding import draw


def ours(name: str, video: np.ndarray) -> Callable[[], object]:
    model, about = create_model(name), spec(name)
    task = create_task("masked_autoencoding", inputs=model_inputs(about, about.streams))
    x = normalize(jnp.asarray(video), about.mean, about.std)
    drawn = draw(model, jax.random.key(0), video.shape)
    variables = jax.jit(model.init)(jax.random.key(1), x)

    @jax.jit
    def step(params, x, drawn):
        def loss(p):
            error, weight, _ = task.clip_errors(model, p, x, *drawn, train=True)
            return error.sum() / weight.sum()

        return jax.value_and_grad(loss)(params)

    return lambda: jax.block_until_ready(step(variables["params"], x, drawn))


def every_token(name: str, video: np.ndarray) -> Callable[[], object]:
    """Returns a training step of a classifier with the same encoder on all tokens."""
    about, model = spec(name), create_model(name.removesuffix("_pretrain"))
    x = normalize(jnp.asarray(video), about.mean, about.std)
    variables = jax.jit(model.init)(jax.random.key(1), x)

    @jax.jit
    def step(params, x):
        def loss(p):
            logits = model.apply({"params": p}, x, train=True, rngs={"dropout": jax.random.key(2)})[0]
            return -jax.nn.log_softmax(logits)[:, 0].mean()

        return jax.value_and_grad(loss)(params)

    return lambda: jax.block_until_ready(step(variables["params"], x))


def peer(name: str, video: np.ndarray) -> Callable[[], object]:
    """Returns a step of the Hugging Face model. Raises ImportError without PyTorch or transformers."""
    import torch

    sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "golden"))
    import oracles  # noqa: F401, declares the operators that torchvision's CPU build may lack
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    torch.set_num_threads(cores())
    model, about = create_model(name), spec(name)
    config = VideoMAEConfig(
        image_size=video.shape[2],
        num_frames=video.shape[1],
        patch_size=model.patch[1],
        tubelet_size=model.patch[0],
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.heads,
        intermediate_size=model.mlp_width,
        decoder_hidden_size=model.decoder_width,
        decoder_num_hidden_layers=model.decoder_depth,
        decoder_num_attention_heads=model.decoder_heads,
        decoder_intermediate_size=4 * model.decoder_width,
        norm_pix_loss=True,
    )
    reference = VideoMAEForPreTraining(config).train()
    x = np.array(normalize(jnp.asarray(video), about.mean, about.std))
    pixels = torch.from_numpy(x).permute(0, 1, 4, 2, 3).contiguous()
    visible = np.asarray(draw(model, jax.random.key(0), video.shape)[0])
    mask = torch.ones(len(video), model.token_grid(video.shape[1:]).count, dtype=torch.bool)
    for row, seen in zip(mask, visible):
        row[torch.tensor(seen.tolist())] = False

    def step():
        reference.zero_grad(set_to_none=True)
        reference(pixel_values=pixels, bool_masked_pos=mask).loss.backward()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="videomae_b_pretrain", help="a registered name")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    shape = (args.batch, *spec(args.model).input_shape)
    video = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    print(f"{args.model}, input {'x'.join(map(str, shape))} float32\n{environment()}")
    mine = {"pretraining step": ours(args.model, video)}
    sides = {"ours": mine}
    try:
        sides["peer"] = {"pretraining step": peer(args.model, video)}
    except ImportError as error:
        print(f"timing only vidjax: {error}")
    race(sides, args.repeats)
    whole, masked = {"step": every_token(args.model, video)}, {"step": mine["pretraining step"]}
    race({"all tokens": whole, "masked": masked}, args.repeats)


if __name__ == "__main__":
    main()
