"""Maps boxes, points and displacements between the pixels of a frame and those of a transformed clip."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Geometry:
    """An axis-aligned affine map from frame pixels to clip pixels, as made by crops, resizes and flips.

    Coordinates are continuous: pixel i covers [i, i + 1), so a whole frame is the box (0, 0, width, height).
    A point maps to `scale * point + offset`. Start from `identity` and append one step at a time:

        Geometry.identity(240, 320).crop(8, 48, 224, 224).resize(112, 112).flip()

    Arrays hold x before y, as datasets store them, and may have any leading dimensions. Results are float64.

    Attributes:
      frame: height and width of the frame.
      clip: height and width of the clip.
      scale: clip pixels per frame pixel along y and x; the latter is negative if the clip is mirrored.
      offset: y and x of the frame's origin in the clip.
    """

    frame: tuple[int, int]
    clip: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def identity(cls, height: int, width: int) -> "Geometry":
        """Returns the geometry of an unchanged frame."""
        return cls((height, width), (height, width))

    @property
    def flipped(self) -> bool:
        """Whether the clip is mirrored horizontally."""
        return self.scale[1] < 0

    def then(self, after: "Geometry") -> "Geometry":
        """Composes two geometries: `self` is applied first, and `after` to its clip.

        Raises:
          ValueError: the frame of `after` is not the clip of `self`.
        """
        if after.frame != self.clip:
            raise ValueError(f"a geometry of {after.frame} frames cannot follow one of {self.clip} clips")
        (y, x), (down, right), (top, left) = self.offset, after.scale, after.offset
        scale = self.scale[0] * down, self.scale[1] * right
        return Geometry(self.frame, after.clip, scale, (y * down + top, x * right + left))

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

    def points(self, points: Any) -> np.ndarray:
        """Maps points [..., 2] (x, y) from the frame to the clip."""
        return np.asarray(points) * self.scale[::-1] + self.offset[::-1]

    def inverse_points(self, points: Any) -> np.ndarray:
        """Maps points [..., 2] (x, y) from the clip to the frame."""
        return (np.asarray(points) - self.offset[::-1]) / self.scale[::-1]

    def boxes(self, boxes: Any) -> np.ndarray:
        """Maps boxes [..., 4] (x1, y1, x2, y2) from the frame to the clip, without clipping them."""
        return self._ordered(_by_corners(self.points, boxes))

    def inverse_boxes(self, boxes: Any) -> np.ndarray:
        """Maps boxes [..., 4] (x1, y1, x2, y2) from the clip to the frame, without clipping them."""
        return self._ordered(_by_corners(self.inverse_points, boxes))

    def clip_boxes(self, boxes: Any) -> tuple[np.ndarray, np.ndarray]:
        """Maps boxes from the frame to the clip and clips them to it.

        Args:
          boxes: [..., 4] (x1, y1, x2, y2) in frame pixels.

        Returns:
          The clipped boxes [..., 4] in clip pixels, and the fraction [...] of each box's area that lies
          within the clip, 0 for boxes without an area.
        """
        boxes = self.boxes(boxes)
        height, width = self.clip
        clipped = np.clip(boxes, 0, [width, height, width, height])
        whole = _area(boxes)
        return clipped, np.divide(_area(clipped), whole, out=np.zeros_like(whole), where=whole > 0)

    def flow_vectors(self, flow: Any) -> np.ndarray:
        """Maps displacements [..., 2] (dx, dy) in frame pixels to clip pixels."""
        return np.asarray(flow) * self.scale[::-1]

    def to_array(self) -> np.ndarray:
        """Returns the numbers of the geometry, float64 [8], for `from_array`."""
        return np.array([*self.frame, *self.clip, *self.scale, *self.offset])

    @classmethod
    def from_array(cls, numbers: np.ndarray) -> "Geometry":
        """Restores a geometry from `to_array`."""
        h, w, height, width, *rest = numbers.tolist()
        return cls((int(h), int(w)), (int(height), int(width)), (rest[0], rest[1]), (rest[2], rest[3]))

    def _ordered(self, boxes: np.ndarray) -> np.ndarray:
        """Swaps x1 and x2 of boxes if the clip is mirrored, so that x1 <= x2."""
        return boxes[..., [2, 1, 0, 3]] if self.flipped else boxes


def _by_corners(function: Any, boxes: Any) -> np.ndarray:
    """Applies a function of points [..., 2] to the two corners of boxes [..., 4]."""
    boxes = np.asarray(boxes)
    return function(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
