"""Whether a model takes a clip, found before anything runs: the refusals of training and of `describe`."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import flax.linen as nn

from vidjax.errors import UserError
from vidjax.registry import InputShape


def check_patches(name: str, model: nn.Module, shape: InputShape, prefix: str = "") -> None:
    """Checks that an input fills the patches of a transformer, which would not see the rest.

    Args:
      name: the model's registered name, for the message.
      model: any model; those without patches take every input.
      shape: (T, H, W, C) or (H, W, C), without the batch axis.
      prefix: of `frames` and `size` in the message, "data." for those of a config.

    Raises:
      UserError: the offending number, and the nearest that fit.
    """
    if not hasattr(model, "token_grid") or isinstance(shape, Mapping) or len(shape) < 3:
        return
    patch = model.patch if isinstance(model.patch, Sequence) else (getattr(model, "tubelet", 1), model.patch)
    frames = shape[0] if len(shape) == 4 else patch[0]
    checks = (
        ("frames", frames, "tubelets", "frames", patch[0]),
        ("size", shape[-2], "patches", "pixels", patch[1]),
    )
    for key, n, what, unit, p in checks:
        if n % p:
            good = [str(m) for m in (n // p * p, (n // p + 1) * p) if m]
            raise UserError(
                f"{prefix}{key}={n} does not divide into the {what} of {p} {unit} of {name}: set it to "
                f"{' or '.join(good)}"
            )


@contextlib.contextmanager
def refusing(refusal: str) -> Iterator[None]:
    """Turns an error of tracing a model on an unfit input into a one-line `UserError`: `refusal`, and why."""
    try:
        yield
    except (TypeError, ValueError, ZeroDivisionError) as e:
        raise UserError(f"{refusal}: {str(e).strip().splitlines()[0]}") from None


def check_endpoints(refusal: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises `UserError` for an endpoint of no elements; `shapes` have a batch axis."""
    for name, shape in shapes.items():
        if 0 in shape:
            raise UserError(
                f"{refusal}: nothing is left of them at {name}, whose shape is {tuple(shape[1:])}"
            )
