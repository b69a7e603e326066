"""Maps boxes, points and displacements between the pixels of a frame and those of a transformed clip."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """An affine map from frame pixels to clip pixels, as made by crops, resizes, flips and warps.

    Coordinates are continuous: pixel i covers [i, i + 1), so a whole frame is the box (0, 0, width, height).
    A point (x, y) maps to

        (scale[1] * x + shear[1] * y + offset[1], scale[0] * y + shear[0] * x + offset[0])

    Start from `identity` and append one step at a time:

        Geometry.identity(240, 320).crop(8, 48, 224, 224).resize(112, 112).flip()

    Arrays hold x before y, as datasets store them, and may have any leading dimensions. Results are float64.

    Attributes:
      frame: height and width of the frame.
      clip: height and width of the clip.
      scale: clip pixels along y and x per frame pixel along the same axis.
      offset: y and x of the frame's origin in the clip.
      shear: clip pixels along y per frame pixel along x, and along x per frame pixel along y.
      window: the box (x1, y1, x2, y2) of the clip outside of which it shows no part of the frame but the fill
        color of warps; None for the whole clip. It is exact for translations. Rotations and shears fill
        triangles as well, which it does not exclude.
    """

    frame: tuple[int, int]
    clip: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    shear: tuple[float, float] = (0.0, 0.0)
    window: Box | None = None

    @classmethod
    def identity(cls, height: int, width: int) -> "Geometry":
        """Returns the geometry of an unchanged frame."""
        return cls((height, width), (height, width))

    @property
    def flipped(self) -> bool:
        """Whether the clip is a mirror image of the frame."""
        return self._determinant < 0

    def then(self, after: "Geometry") -> "Geometry":
        """Composes two geometries: `self` is applied first, and `after` to its clip.

        Raises:
          ValueError: the frame of `after` is not the clip of `self`.
        """
        if after.frame != self.clip:
            raise ValueError(f"a geometry of {after.frame} frames cannot follow one of {self.clip} clips")
        (a, b), (c, d) = self.scale, self.shear
        (down, right), (tilt, slant) = after.scale, after.shear
        (y, x), (top, left) = self.offset, after.offset
        window = after.window
        if self.window is not None:
            window = _overlap(after._box(self.window), window or (0.0, 0.0, *map(float, after.clip[::-1])))
        return Geometry(
            self.frame,
            after.clip,
            (down * a + tilt * d, right * b + slant * c),
            (down * y + tilt * x + top, right * x + slant * y + left),
            (down * c + tilt * b, right * d + slant * a),
            window,
        )

    def crop(self, top: int, left: int, height: int, width: int) -> "Geometry":
        """Appends a crop of the clip."""
        return self.then(Geometry(self.clip, (height, width), offset=(-float(top), -float(left))))

    def resize(self, height: int, width: int) -> "Geometry":
        """Appends a resize of the whole clip."""
        scale = (height / self.clip[0], width / self.clip[1])
        return self.then(Geometry(self.clip, (height, width), scale))

    def flip(self) -> "Geometry":
        """Appends a horizontal flip of the clip."""
        return self.then(Geometry(self.clip, self.clip, (1.0, -1.0), (0.0, float(self.clip[1]))))

    def warp(self, read_at: Sequence[float]) -> "Geometry":
        """Appends an affine warp of the clip that keeps its size.

        Args:
          read_at: (a, b, c, d, e, f); the pixel at (x, y) of the warped clip shows the point
            (a x + b y + c, d x + e y + f) of the clip, as in `PIL.Image.transform`.
        """
        a, b, c, d, e, f = (float(x) for x in read_at)
        det = a * e - b * d
        offset = (d * c - a * f) / det, (b * f - e * c) / det
        warp = Geometry(self.clip, self.clip, (a / det, e / det), offset, (-d / det, -b / det))
        whole = 0.0, 0.0, float(self.clip[1]), float(self.clip[0])
        window = _overlap(warp._box(whole), whole)
        return self.then(dataclasses.replace(warp, window=None if window == whole else window))

    def points(self, points: Any) -> np.ndarray:
        """Maps points [..., 2] (x, y) from the frame to the clip."""
        return self.flow_vectors(points) + self.offset[::-1]

    def inverse_points(self, points: Any) -> np.ndarray:
        """Maps points [..., 2] (x, y) from the clip to the frame."""
        points = np.asarray(points) - self.offset[::-1]
        if not any(self.shear):
            return points / self.scale[::-1]
        return (points * self.scale - points[..., ::-1] * self.shear[::-1]) / self._determinant

    def boxes(self, boxes: Any) -> np.ndarray:
        """Maps boxes [..., 4] (x1, y1, x2, y2) from the frame to the clip, without clipping them.

        A box that is rotated or sheared becomes the smallest box around its four corners.
        """
        return _hull(self.points(_corners(boxes)))

    def inverse_boxes(self, boxes: Any) -> np.ndarray:
        """Maps boxes [..., 4] (x1, y1, x2, y2) from the clip to the frame, without clipping them.

        It inverts `boxes`, unless boxes were rotated or sheared: both then return the smallest box around the
        four corners.
        """
        return _hull(self.inverse_points(_corners(boxes)))

    def clip_boxes(self, boxes: Any) -> tuple[np.ndarray, np.ndarray]:
        """Maps boxes from the frame to the clip and clips them to its `window`.

        Args:
          boxes: [..., 4] (x1, y1, x2, y2) in frame pixels.

        Returns:
          The clipped boxes [..., 4] in clip pixels, and the fraction [...] of the area of each box of `boxes`
          that lies within the window, 0 for boxes without an area.
        """
        boxes = self.boxes(boxes)
        low_x, low_y, high_x, high_y = self.window or (0, 0, self.clip[1], self.clip[0])
        clipped = np.clip(boxes, [low_x, low_y] * 2, [high_x, high_y] * 2)
        whole = _area(boxes)
        return clipped, np.divide(_area(clipped), whole, out=np.zeros_like(whole), where=whole > 0)

    def flow_vectors(self, flow: Any) -> np.ndarray:
        """Maps displacements [..., 2] (dx, dy) in frame pixels to clip pixels."""
        flow = np.asarray(flow)
        return flow * self.scale[::-1] + flow[..., ::-1] * self.shear[::-1]

    def to_array(self) -> np.ndarray:
        """Returns the numbers of the geometry, float64 [14], for `from_array`."""
        window = self.window or (0, 0, self.clip[1], self.clip[0])
        return np.array([*self.frame, *self.clip, *self.scale, *self.offset, *self.shear, *window], float)

    @classmethod
    def from_array(cls, numbers: np.ndarray) -> "Geometry":
        """Restores a geometry from `to_array`."""
        h, w, height, width, down, right, y, x, tilt, slant, *box = numbers.tolist()
        window = None if box == [0, 0, width, height] else (box[0], box[1], box[2], box[3])
        sizes = (int(h), int(w)), (int(height), int(width))
        return cls(*sizes, (down, right), (y, x), (tilt, slant), window)

    @property
    def _determinant(self) -> float:
        return self.scale[0] * self.scale[1] - self.shear[0] * self.shear[1]

    def _box(self, box: Box) -> Box:
        x1, y1, x2, y2 = self.boxes(box).tolist()
        return x1, y1, x2, y2


def _corners(boxes: Any) -> np.ndarray:
    """Returns the corners [..., 4, 2] of boxes [..., 4]."""
    boxes = np.asarray(boxes)
    return boxes[..., [0, 1, 2, 1, 0, 3, 2, 3]].reshape(*boxes.shape[:-1], 4, 2)


def _hull(points: np.ndarray) -> np.ndarray:
    """Returns the smallest boxes [..., 4] around points [..., n, 2]."""
    return np.concatenate([points.min(-2), points.max(-2)], -1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _overlap(a: Sequence[float], b: Sequence[float]) -> Box:
    """Returns the intersection of two boxes; its area is 0 if they are apart."""
    x1, y1 = max(a[0], b[0]), max(a[1], b[1])
    return x1, y1, max(x1, min(a[2], b[2])), max(y1, min(a[3], b[3]))
