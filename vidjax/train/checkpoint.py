"""Checkpoints: asynchronous, atomic, and enough in each to go on from it or to use the model elsewhere."""

import errno
from collections.abc import Mapping
from typing import Any

import flax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from vidjax import files
from vidjax.errors import DiskFull
from vidjax.train.state import State


class Checkpointer:
    """The checkpoints of one workdir: the latest `keep`, and the best by a metric.

    A checkpoint holds `state` (a nested dict of arrays) and `meta` (JSON: config, class names, position in
    the data, versions, metrics). It appears under its final name only when it is complete, and an older one
    is deleted after that; whatever dies in between, a good one is left.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 1):
        self.folder = files.absolute(workdir) / "checkpoints"
        best = managers.BestN(
            get_metric_fn=lambda m: m["metric"], n=1, keep_checkpoints_without_metrics=False
        )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=lambda m: m["metric"],
                preservation_policy=managers.AnyPreservationPolicy([managers.LatestN(keep), best]),
                cleanup_tmp_directories=True,
            ),
            item_names=("state", "meta"),
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: State, meta: Mapping[str, Any], metric: float | None = None) -> None:
        """Starts saving `state` under its step, unless that is there. A higher `metric` is better.

        Raises:
          DiskFull: this save or the one before it could not be written, for a full disk say.
        """
        step = int(state.step)
        with DiskErrors(self.folder):
            if step in self._manager.all_steps():
                return
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(flax.serialization.to_state_dict(state)),
                    meta=ocp.args.JsonSave(dict(meta)),
                ),
                metrics=None if metric is None else {"metric": float(metric)},
            )

    def wait(self) -> None:
        """Returns when everything is on disk. Raises as `save` does."""
        with DiskErrors(self.folder):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, abstract: State) -> tuple[State, dict[str, Any]]:
        """The newest state, placed as the shapes and shardings of `abstract` say, and its meta."""
        target = flax.serialization.to_state_dict(abstract)
        step = self._manager.latest_step()
        saved = self._manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()),
        )
        return flax.serialization.from_state_dict(abstract, saved["state"]), saved["meta"]

    def close(self) -> None:
        """Waits for what is being written and lets go of the folder."""
        with DiskErrors(self.folder):
            self._manager.close()


class DiskErrors:
    """Turns what a full or read-only disk raises, through whichever library, into one clear line.

    It is told by the error number of the operating system or by its words, never by the status
    RESOURCE_EXHAUSTED, which a device without memory has as well.
    """

    def __init__(self, folder: epath.PathLike):
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
        full = isinstance(error, OSError) and error.errno in codes
        if error is not None and (full or any(s in str(error).lower() for s in DiskFull.SIGNS)):
            raise DiskFull(
                f"cannot write to {self.folder}: no room on the disk; earlier checkpoints are intact, free "
                "some space and run the same command again"
            ) from error
