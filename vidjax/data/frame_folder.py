"""Videos that are distributed as folders of numbered images, such as 00001.jpg, 00002.jpg, …"""

import dataclasses
import os
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vidjax.data.decode import DecodeError

_IMAGES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class FrameFolder:
    """Reference to a folder of frames, cheap to pickle to a worker."""

    path: str
    fps: float

    def open(self) -> "Frames":
        """Lists the frames. Raises `DecodeError` if there are none."""
        try:
            names = sorted(n for n in os.listdir(self.path) if n.lower().endswith(_IMAGES) and n[0] != ".")
        except OSError as e:
            raise DecodeError(f"{self.path}: {e.strerror}") from None
        if not names:
            raise DecodeError(f"{self.path}: no frames ({', '.join(_IMAGES)})")
        return Frames(self.path, tuple(names), self.fps)


@dataclasses.dataclass(frozen=True)
class Frames:
    """The frames of a folder in the order of their names, with the interface of `Video`.

    Attributes:
      path: the folder.
      names: file names of the frames.
      fps: frames per second.
    """

    path: str
    names: tuple[str, ...]
    fps: float
    tolerance = 0.0  # see `Video`; these times are exact

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def num_frames(self) -> int:
        return len(self.names)

    @property
    def times(self) -> np.ndarray:
        return np.arange(len(self.names)) / self.fps

    def frames(self, indices: np.ndarray, grey: bool = False) -> np.ndarray:
        """Returns the frames at `indices`, uint8 [n, H, W, 3], or their luma [n, H, W, 1] if `grey`.

        Raises:
          DecodeError: a frame cannot be read, or differs in size from the others.
        """
        images = {}
        for i in {*np.asarray(indices).tolist()}:
            path = os.path.join(self.path, self.names[i])
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("L" if grey else "RGB"))
            except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as e:
                raise DecodeError(f"{path}: not a readable image ({e})") from None
            images[i] = pixels[..., None] if grey else pixels
            if len({image.shape for image in images.values()}) > 1:
                raise DecodeError(f"{path}: the frames differ in size")
        return np.stack([images[i] for i in np.asarray(indices).tolist()])
