"""Batch augmentation of normalized clips on the device: mixup, CutMix and random erasing.

All three have static shapes and take a key, so they run inside the jitted training step.
"""

import math

import jax
import jax.numpy as jnp

from vidjax.sharding import SAMPLES, axis_size


def mix(
    rng: jax.Array,
    video: jax.Array,
    targets: jax.Array,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    switch: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
    """Applies mixup or CutMix to a batch, with one draw for the whole batch.

    Clip i of the n clips on a device is mixed with clip n - 1 - i, as timm's
    `x.mul_(lam).add_(x.flip(0).mul_(1 - lam))` does in each process, so that no video moves between devices.
    The pairs therefore depend on the mesh. If a device holds a single clip, the pairs are formed in the whole
    batch, across devices.

    Mixup (Zhang et al., arXiv:1710.09412, section 2) averages clips with weight lam ~ Beta(mixup, mixup).
    CutMix (Yun et al., arXiv:1905.04899, section 3.1) replaces a box, the same in every frame, with an area
    of 1 - lam of the frame, lam ~ Beta(cutmix, cutmix). Targets are averaged by the fraction of pixels kept.
    Draws, boxes and weights are those of timm's mode "batch", which video recipes use, with `correct_lam`;
    smoothing the targets before mixing, as the tasks do, equals timm's smoothing.

    Args:
      rng: key.
      video: [B, ..., H, W, C], normalized.
      targets: [B, K].
      mixup, cutmix: alpha of mixup and of CutMix; 0 disables it.
      switch: probability of CutMix if both are enabled.

    Returns:
      The mixed clips and targets, with the shapes of `video` and `targets`.
    """
    if not (mixup or cutmix):
        return video, targets
    choice, beta, place = jax.random.split(rng, 3)
    share = switch if mixup and cutmix else float(bool(cutmix))
    cut = jax.random.uniform(choice) < share
    lam = jax.random.beta(beta, jnp.where(cut, cutmix, mixup), jnp.where(cut, cutmix, mixup))
    box = cutmix_box(jax.random.uniform(place, (2,)), (video.shape[-3], video.shape[-2]), jnp.sqrt(1 - lam))
    lam = jnp.where(cut, 1 - box.mean(), lam)
    keep = jnp.where(cut, 1.0 - box, lam).reshape((1,) * (video.ndim - 3) + (*box.shape, 1))
    video = video * keep.astype(video.dtype) + _mirror(video) * (1 - keep).astype(video.dtype)
    return video, lam * targets + (1 - lam) * _mirror(targets)


def _mirror(x: jax.Array) -> jax.Array:
    """Reverses [B, ...] along the batch within the shard of each device of the current mesh."""
    shares = axis_size(*SAMPLES)
    if x.shape[0] % shares or x.shape[0] == shares:
        return x[::-1]
    return x.reshape(shares, -1, *x.shape[1:])[:, ::-1].reshape(x.shape)


ERASING_MODES = ("pixel", "rand", "const")
_ATTEMPTS = 10  # at the default area and aspect, a box of a square frame fits with probability 0.98


def random_erasing(
    rng: jax.Array,
    video: jax.Array,
    probability: float,
    mode: str = "pixel",
    count: int = 1,
    per_frame: bool = False,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> jax.Array:
    """Fills random boxes of a clip, as timm and PySlowFast do (Zhong et al., arXiv:1708.04896).

    Args:
      rng: key.
      video: [B, T, H, W, C], normalized.
      probability: probability that a clip is erased, or a frame if `per_frame`.
      mode: "pixel" fills with standard normal noise, "rand" with one normal color for each box and frame,
        "const" with 0, the mean color.
      count: highest number of boxes, each of a proportionally smaller area; the number is drawn uniformly
        from 1 to `count`.
      per_frame: whether every frame has boxes of its own; otherwise all frames of a clip have the same.
      area: range of a box's area as a fraction of the frame.
      aspect: range of height / width in pixels, drawn log-uniformly.

    Returns:
      [B, T, H, W, C].
    """
    b, t, h, w, c = video.shape
    place, fill = jax.random.split(rng)
    boxes = erasing_boxes(
        place, (b, t if per_frame else 1), (h, w), probability, count=count, area=area, aspect=aspect
    )
    noise = jax.random.normal(fill, video.shape, video.dtype) if mode == "pixel" else jnp.zeros_like(video)
    for k in range(count):
        if mode == "rand":
            noise = jax.random.normal(jax.random.fold_in(fill, k), (b, t, 1, 1, c), video.dtype)
        top, left, height, width = (x[..., k].reshape(b, -1, 1, 1, 1) for x in boxes)
        y, x = jnp.arange(h).reshape(1, 1, h, 1, 1), jnp.arange(w).reshape(1, 1, 1, w, 1)
        inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        video = jnp.where(inside, noise, video)
    return video


def erasing_boxes(
    rng: jax.Array,
    shape: tuple[int, ...],
    size: tuple[int, int],
    probability: float,
    count: int = 1,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws the boxes of `random_erasing` for images of `size` (H, W), independently for each of `shape`.

    As in timm, a box is drawn again until it is smaller than the frame in both dimensions, and then placed
    uniformly within it. Clipping it instead would favor the borders and erase less than `area`. The draws of
    all attempts are made at once, for static shapes.

    Returns:
      top, left, height, width, int32 [*shape, count]; height and width are 0 for what is not erased.
    """
    h, w = size
    keys = jax.random.split(rng, 6)
    draws = (*shape, count, _ATTEMPTS)
    boxes = jax.random.randint(keys[0], (*shape, 1), 1, count + 1)
    number = jnp.arange(count).reshape(*(1 for _ in shape), count)
    erased = (jax.random.uniform(keys[1], (*shape, 1)) < probability) & (number < boxes)
    share = jax.random.uniform(keys[2], draws, minval=area[0], maxval=area[1])
    low, high = map(math.log, aspect)
    ratio = jnp.exp(jax.random.uniform(keys[3], draws, minval=low, maxval=high))
    height, width = erasing_size(share * h * w / boxes[..., None], ratio)
    fits = (height < h) & (width < w)
    first = fits.argmax(-1, keepdims=True)
    erased &= fits.any(-1)
    height, width = (jnp.where(erased, jnp.take_along_axis(x, first, -1)[..., 0], 0) for x in (height, width))
    top, left = (
        jnp.floor(jax.random.uniform(key, height.shape) * (n - x + 1)).astype(int)
        for key, n, x in ((keys[4], h, height), (keys[5], w, width))
    )
    return top, left, height, width


def erasing_size(area: jax.Array, aspect: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns height and width, int32, of boxes of an area in pixels and an aspect of height / width."""
    return tuple(jnp.round(jnp.sqrt(x)).astype(int) for x in (area * aspect, area / aspect))


def cutmix_box(centers: jax.Array, size: tuple[int, int], share: jax.Array) -> jax.Array:
    """Returns a mask [H, W] of CutMix's box, with timm's rounding.

    Args:
      centers: y and x as a fraction of the frame, [2]. The box is clipped to the frame.
      size: H and W.
      share: height and width as a fraction of the frame.
    """

    def inside(n, center):
        half, middle = jnp.floor(n * share).astype(int) // 2, jnp.floor(n * center).astype(int)
        i = jnp.arange(n)
        return ((i >= middle - half) & (i < middle + half)).astype(jnp.float32)

    return inside(size[0], centers[0]).reshape(-1, 1) * inside(size[1], centers[1]).reshape(1, -1)
