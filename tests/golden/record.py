"""Records outputs of reference implementations as NAME.npz in the folder of this file. Requires PyTorch.

  python tests/golden/record.py resnet18 r3d_18

Weights are not stored, but sampled from a seed and their names (weights.py), both here and in the tests. The
reference runs in float64, so that the tests measure the float32 error of vidjax alone.
"""

import argparse
import importlib.metadata
import json
import pathlib

import numpy as np
import torch
from oracles import Case, cases
from weights import draw_all, draw_input, sample

SEED, INPUT_SEED, CLASSES = 1, 2, 11


def chosen(doc: str) -> dict[str, Case]:
    """Returns the cases named on the command line, or all. `doc` is the docstring of the script."""
    found = cases()
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(found)}; all by default")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in found]:
        parser.error(f"no reference for {', '.join(unknown)}: there are {', '.join(found)}")
    return {name: found[name] for name in names or found}


def run(case: Case, model: torch.nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns logits and stage outputs in our layout for an input [B, (T,) H, W, C]."""
    out = {}

    def keep(stage):
        def hook(module, inputs, y):
            out[stage] = case.to_ours(stage, y)

        return hook

    hooks = [model.get_submodule(m).register_forward_hook(keep(s)) for m, s in case.stages.items()]
    with torch.no_grad():
        out["logits"] = case.call(model, case.to_input(x)).numpy()
    for hook in hooks:
        hook.remove()
    return out


def load_drawn(model: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Samples weights, loads them into the model, and returns them."""
    drawn = draw_all({k: list(v.shape) for k, v in model.state_dict().items()}, seed)
    for name, own in model.state_dict().items():
        if not own.is_floating_point():  # counts and indices are not weights
            drawn[name] = own.numpy()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in drawn.items()})
    return drawn


def main() -> None:
    for name, case in chosen(__doc__).items():
        model = case.build(CLASSES)
        load_drawn(model, SEED)
        shapes = {k: list(v.shape) for k, v in model.state_dict().items()}
        out = run(case, model.double(), draw_input(case.input_shape, INPUT_SEED).astype(np.float64))
        made_with = (f"{p} {importlib.metadata.version(p)}" for p in dict.fromkeys((case.package, "torch")))
        about = {
            "model": case.model or name,
            "made_with": ", ".join(made_with),
            "classes": CLASSES,
            "seed": SEED,
            "input_seed": INPUT_SEED,
            "input_shape": case.input_shape,
            "options": dict(case.options),
            "tolerance": case.tolerance,
            "shapes": shapes,
        }
        arrays = {k: sample(v).astype(np.float32) for k, v in out.items()}
        path = pathlib.Path(__file__).with_name(f"{name}.npz")
        np.savez_compressed(path, about=json.dumps(about), **arrays)
        print(
            name, f"{path.stat().st_size:,} bytes", {k: f"{np.abs(v).max():.3g}" for k, v in arrays.items()}
        )


if __name__ == "__main__":
    main()
