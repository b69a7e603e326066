"""Generated videos, written once to array_record files by tensorflow-datasets without TensorFlow."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from absl import logging

from vidjax import files
from vidjax.data.cache_folder import cache_dir
from vidjax.errors import UserError

_TOGETHER = 256  # videos held in memory while a split is written


@dataclasses.dataclass(frozen=True)
class StoredVideo:
    """Reference to a video of a generated split, cheap to pickle to a worker."""

    generated: ClassVar[bool] = True  # small and intra-coded, so frames are not cached automatically
    folder: str
    split: str
    index: int

    def read(self) -> bytes:
        """Returns the contents of the video file."""
        return open_split(self.folder, self.split)[self.index]["video"]


@functools.lru_cache(maxsize=8)
def open_split(folder: str, split: str) -> Any:
    """Returns random access to the examples of a split in the folder that `generate` returned."""
    return tfds.builder_from_directory(folder).as_data_source(split)


class Info(tfds.core.DatasetInfo):
    """Information on a generated dataset."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: generated data is in no bucket, and the lookup would leave a temporary folder."""


def generate(
    builder: type[tfds.core.GeneratorBasedBuilder], config: Any, path: str | os.PathLike | None
) -> str:
    """Writes a dataset unless it exists, and returns its folder.

    Args:
      builder: writes the splits.
      config: its configuration, whose name identifies the data.
      path: the root folder; None is $VIDJAX_CACHE, or ~/.cache/vidjax.

    Raises:
      UserError: the folder cannot be written.
    """
    root = Path(path or cache_dir()).expanduser().absolute()  # workers may be in other folders
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _quiet(), files.locked(root / f"{builder.name}.lock"):
            made = builder(data_dir=root, config=config, file_format="array_record")
            if not made.data_path.exists():
                for left in made.data_path.parent.glob("incomplete*"):  # left by a process that was killed
                    shutil.rmtree(left)
                made.download_and_prepare()
    except OSError as e:
        raise UserError(f"{builder.name}: cannot write to {root} ({e}); set the option path") from e
    return os.fspath(made.data_path)


def in_parallel(make: Callable[[int], Any], count: int) -> Iterator[Any]:
    """Yields make(0), ..., make(count - 1), computed on all cores."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, count, _TOGETHER):  # bounds the videos held in memory
            yield from pool.map(make, range(first, min(first + _TOGETHER, count)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences tensorflow-datasets, which would report a download."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
