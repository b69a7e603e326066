"""Draws the frames of a scene, and what is known about every pixel: boxes, visibility, flow and occlusion.

The position (x, y) in pixels is continuous: pixel i covers [i, i + 1), and its center is i + 0.5.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from vidjax.data.datasets.synthetic_motion import SHAPES
from vidjax.data.datasets.synthetic_scenes.script import COLORS, Object, Scene

SOLID = 0.5  # opacity from which on a pixel belongs to an object
_FINE = 4  # supersampling of sprites
_GRIDS = (5, 16)  # sizes of the noise that the background consists of


def background(scene: Scene, size: int) -> np.ndarray:
    """Returns smooth, nearly gray noise at two scales, periodic, float32 [size, size, 3]."""
    rng = np.random.default_rng((*scene.key, 2))
    coarse, fine = (_enlarged(rng.random((n, n, 3)), size) for n in _GRIDS)
    mix = 0.6 * coarse + 0.4 * fine
    gray = mix.mean(axis=-1, keepdims=True)
    return np.clip(60 + 110 * (gray + 0.35 * (mix - gray)), 0, 255)


def _enlarged(noise: np.ndarray, size: int) -> np.ndarray:
    """Returns periodic noise [n, n, 3] enlarged to float32 [size, size, 3]."""
    center = (np.arange(size) + 0.5) * len(noise) / size - 0.5
    x, y = np.meshgrid(center.astype(np.float32), center.astype(np.float32))
    return cv2.remap(noise.astype(np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)


def _outline(o: Object) -> np.ndarray:
    """Returns the corners of an object's shape, which touches the unit circle, [n, 2]."""
    return SHAPES[o.kind] / np.hypot(*SHAPES[o.kind].T).max()


def _sprites(scene: Scene, size: int) -> list[np.ndarray]:
    """Returns the striped shape of each object, opacity and brightness, float32 [side, side, 2].

    The unit circle of a shape has the radius `_unit(side)`, in pixels.
    """
    side = 2 * round(0.2 * size) + 2
    made = []
    for o in scene.objects:
        fine = np.zeros((_FINE * side, _FINE * side), np.uint8)
        corners = (_outline(o) * _unit(side) + side / 2) * _FINE - 0.5
        cv2.fillPoly(fine, [np.round(corners * 256).astype(np.int32)], 255, shift=8)
        opacity = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA) / 255
        rng = np.random.default_rng((*scene.key, 3, o.kind))
        theta, phase, waves = rng.uniform((0, 0, 1.5), (2 * np.pi, 2 * np.pi, 3))
        row, column = np.mgrid[:side, :side] / side
        along = np.cos(theta) * column + np.sin(theta) * row
        brightness = 0.8 + 0.2 * np.sin(2 * np.pi * waves * along + phase)
        made.append(np.stack([opacity, brightness], -1).astype(np.float32))
    return made


def _unit(side: int) -> float:
    return side / 2 - 1  # a margin, so that interpolation does not cut edges


def _matrix(pose: np.ndarray, size: int, side: int) -> np.ndarray:
    """Returns the affine map [2, 3] from pixel indices of a sprite to those of the frame."""
    x, y, radius, angle, _ = pose
    scale = radius * size / _unit(side)
    cos, sin = scale * np.cos(2 * np.pi * angle), scale * np.sin(2 * np.pi * angle)
    turn, middle = np.array([[cos, -sin], [sin, cos]]), (side - 1) / 2
    center = np.array([x, y]) * size - 0.5
    return np.concatenate([turn, (center - turn @ (middle, middle))[:, None]], 1)


def _layers(sprites: list[np.ndarray], poses: np.ndarray, size: int) -> list[np.ndarray]:
    """Returns opacity and brightness [size, size, 2] of each object at poses [objects, 5]."""
    layers = []
    for image, pose in zip(sprites, poses):
        layer = cv2.warpAffine(image, _matrix(pose, size, len(image)), (size, size))
        layer[..., 0] *= pose[4]
        layers.append(layer)
    return layers


def frames(scene: Scene, times: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yields the frame at each time in seconds, uint8 [size, size, 3]."""
    texture, sprites = background(scene, size), _sprites(scene, size)
    colors = [np.array(list(COLORS.values())[o.color], np.float32) for o in scene.objects]
    for time, poses in zip(times, scene.poses(times).swapaxes(0, 1)):
        x, y = np.array(scene.pan) * time * size % size
        shift = np.array([[1, 0, x], [0, 1, y]])
        frame = cv2.warpAffine(texture, shift, (size, size), borderMode=cv2.BORDER_WRAP)
        for color, layer in zip(colors, _layers(sprites, poses, size)):
            opacity = layer[..., :1]
            frame += opacity * (color * layer[..., 1:] - frame)
        yield np.rint(frame).astype(np.uint8)


def boxes(scene: Scene, times: np.ndarray, size: int) -> np.ndarray:
    """Returns the tight box (x1, y1, x2, y2) in pixels of each object, float64 [objects, T, 4].

    Boxes are those of the whole outline, also where other objects hide it or it is transparent.
    """
    found = []
    for o, poses in zip(scene.objects, scene.poses(times)):
        outline, angle, radius = _outline(o), 2 * np.pi * poses[:, 3:4], poses[:, 2:3]
        x = poses[:, 0:1] + radius * (np.cos(angle) * outline[:, 0] - np.sin(angle) * outline[:, 1])
        y = poses[:, 1:2] + radius * (np.sin(angle) * outline[:, 0] + np.cos(angle) * outline[:, 1])
        found.append(np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1) * size)
    return np.stack(found)


def visibility(scene: Scene, times: np.ndarray, size: int) -> np.ndarray:
    """Returns the share of each object that is neither hidden nor transparent, float64 [objects, T].

    The share is that of its pixels in the frame.
    """
    poses, sprites = scene.poses(times), _sprites(scene, size)
    shares = np.zeros(poses.shape[:2])
    for t in range(len(times)):
        light = np.ones((size, size))
        opaque = np.concatenate([poses[:, t, :4], np.ones((len(poses), 1))], 1)
        for i, layer in reversed(list(enumerate(_layers(sprites, opaque, size)))):  # from front to back
            shares[i, t] = poses[i, t, 4] * (layer[..., 0] * light).sum() / layer[..., 0].sum()
            light *= 1 - poses[i, t, 4] * layer[..., 0]
    return shares


def flow(scene: Scene, times: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the optical flow from each frame to the next, and which pixels are occluded in the next.

    A pixel moves with the front object whose opacity there is at least `SOLID`, or with the background. It is
    occluded if its point of the surface leaves the frame, is behind another such object, or fades below it.

    Returns:
      Displacement (x, y) in pixels, float32 [T - 1, size, size, 2], and bool [T - 1, size, size].
    """
    poses, sprites = scene.poses(times).swapaxes(0, 1), _sprites(scene, size)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(np.float64)
    vectors = np.zeros((max(len(times) - 1, 0), size, size, 2), np.float32)
    occluded = np.zeros(vectors.shape[:3], bool)
    opacity = np.array([[layer[..., 0] for layer in _layers(sprites, each, size)] for each in poses])
    for t in range(len(vectors)):
        owner = np.full((size, size), -1)
        for i, mask in enumerate(opacity[t] >= SOLID):
            owner[mask] = i
        vectors[t] = np.array(scene.pan) * size * (times[t + 1] - times[t])
        for i, sprite in enumerate(sprites):
            mine = owner == i
            here, there = (_matrix(poses[k, i], size, len(sprite)) for k in (t, t + 1))
            local = (grid[mine] - here[:, 2]) @ np.linalg.inv(here[:, :2]).T
            vectors[t][mine] = local @ there[:, :2].T + there[:, 2] - grid[mine]
        to = (grid + vectors[t]).astype(np.float32)
        occluded[t] = ((to < -0.5) | (to > size - 0.5)).any(-1)
        for i, mask in enumerate(opacity[t + 1]):
            covered = cv2.remap(mask, to[..., 0], to[..., 1], cv2.INTER_LINEAR) >= SOLID
            occluded[t] |= covered & (owner < i)
            occluded[t] |= (owner == i) & (poses[t + 1, i, 4] < SOLID)
    return vectors, occluded
