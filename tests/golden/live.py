"""Compares vidjax with the reference implementations for several seeds, input sizes and numbers of classes.

  python tests/golden/live.py [NAME ...]

Requires PyTorch. The state dict of the reference is converted by `load_pretrained`; both sides run in
float32.
"""

import jax
import numpy as np
from record import chosen, load_drawn, run
from weights import draw_input, relative_error

import vidjax


def main() -> None:
    worst = 0.0
    for name, case in chosen(__doc__).items():
        for seed, (classes, shape) in enumerate(case.live or [(7, case.input_shape)]):
            reference = case.build(classes)
            load_drawn(reference, seed)
            model, variables = vidjax.load_pretrained(
                case.model or name, reference.state_dict(), **case.options
            )
            x = draw_input(shape, seed)
            expected = run(case, reference, x)
            logits, endpoints = jax.jit(model.apply)(variables, x)
            got = {k: np.asarray(v) for k, v in {**endpoints, "logits": logits}.items()}
            errors = {s: relative_error(got[s], w.reshape(got[s].shape)) for s, w in expected.items()}
            where = max(errors, key=errors.get)
            print(
                f"{name:16} {classes:5} classes {shape!s:24} worst {errors[where]:.1e} at {where:10}", end=""
            )
            print(f" logits {errors['logits']:.1e}", flush=True)
            worst = max(worst, errors[where])
    print(f"worst relative error {worst:.2e}")


if __name__ == "__main__":
    main()
