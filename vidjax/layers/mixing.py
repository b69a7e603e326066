"""Batch augmentation of normalized clips on the device: mixup, CutMix and random erasing.

All three have static shapes and take a key, so they run inside the jitted training step.
"""

import math

import jax
import jax.numpy as jnp

_BATCH_AXES = ("data", "fsdp")  # mesh axes that the batch is sharded over, see `vidjax.sharding`


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
    box = _box(place, (video.shape[-3], video.shape[-2]), jnp.sqrt(1 - lam), jnp.sqrt(1 - lam))
    lam = jnp.where(cut, 1 - box.mean(), lam)
    keep = jnp.where(cut, 1.0 - box, lam).reshape((1,) * (video.ndim - 3) + (*box.shape, 1))
    video = video * keep.astype(video.dtype) + _mirror(video) * (1 - keep).astype(video.dtype)
    return video, lam * targets + (1 - lam) * _mirror(targets)


def _mirror(x: jax.Array) -> jax.Array:
    """Reverses [B, ...] along the batch within the shard of each device of the current mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    shares = math.prod(mesh.shape.get(axis, 1) for axis in _BATCH_AXES)
    if x.shape[0] % shares or x.shape[0] == shares:
        return x[::-1]
    return x.reshape(shares, -1, *x.shape[1:])[:, ::-1].reshape(x.shape)


def random_erasing(
    rng: jax.Array,
    video: jax.Array,
    probability: float,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> jax.Array:
    """Fills a random box, the same in every frame of a clip, with noise (Zhong et al., arXiv:1708.04896).

    Args:
      rng: key.
      video: [B, T, H, W, C], normalized.
      probability: probability that a clip is erased.
      area: range of the box's area as a fraction of the frame. Boxes are clipped to the frame.
      aspect: range of height / width, drawn log-uniformly.

    Returns:
      [B, T, H, W, C], with standard normal noise in the boxes.
    """
    b, _, h, w, _ = video.shape
    keys = jax.random.split(rng, 5)
    share = jax.random.uniform(keys[0], (b,), minval=area[0], maxval=area[1])
    ratio = jnp.exp(jax.random.uniform(keys[1], (b,), minval=jnp.log(aspect[0]), maxval=jnp.log(aspect[1])))
    erased = jax.random.uniform(keys[2], (b,)) < probability
    tall, wide = jnp.sqrt(share * ratio * h / w), jnp.sqrt(share / ratio * w / h)
    boxes = jax.vmap(lambda k, y, x: _box(k, (h, w), y, x))(jax.random.split(keys[3], b), tall, wide)
    boxes = (boxes * erased.reshape(-1, 1, 1)).reshape(b, 1, h, w, 1)
    noise = jax.random.normal(keys[4], video.shape, video.dtype)
    return jnp.where(boxes > 0, noise, video)


def _box(rng: jax.Array, size: tuple[int, int], tall: jax.Array, wide: jax.Array) -> jax.Array:
    """Returns a mask [H, W] of a box with the given fractions of height and width at a random center."""
    centers = jax.random.uniform(rng, (2,))

    def inside(n, center, share):
        low, high = jnp.round((center - share / 2) * n), jnp.round((center + share / 2) * n)
        i = jnp.arange(n)
        return ((i >= low) & (i < high)).astype(jnp.float32)

    rows, columns = inside(size[0], centers[0], tall), inside(size[1], centers[1], wide)
    return rows.reshape(-1, 1) * columns.reshape(1, -1)
