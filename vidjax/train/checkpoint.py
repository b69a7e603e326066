"""Asynchronous, atomic checkpoints for resuming a run and for using the model elsewhere."""

import errno
from collections.abc import Mapping
from typing import Any

import flax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from vidjax import files
from vidjax.checkpoint_io import check_object, reading
from vidjax.errors import DiskFull
from vidjax.train.state import State

DAMAGED = "remove the damaged one to resume from the one before it, or use another --workdir"


class Checkpointer:
    """Manages the checkpoints of a workdir: the latest `keep`, the best one by a metric, and every n-th step.

    A checkpoint contains `state` (a nested dict of arrays) and `meta` (JSON: config, class names, data
    position, versions, metrics). It is written under a temporary name and renamed when complete. Older
    checkpoints are deleted after that, so a complete one exists at any time.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 1, keep_every: int | None = None):
        """`keep_every`: the checkpoints at multiples of so many steps are kept as well."""
        self.folder = files.absolute(workdir) / "checkpoints"
        best = managers.BestN(
            get_metric_fn=lambda m: m["metric"], n=1, keep_checkpoints_without_metrics=False
        )
        policies = [managers.LatestN(keep), best]
        if keep_every:
            policies.append(managers.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            best_fn=lambda m: m["metric"],
            preservation_policy=managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
        )
        with reading(self.folder, DAMAGED), DiskErrors(self.folder):  # it reads the metric of each
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "meta"))

    def latest_step(self) -> int | None:
        """Returns the step of the latest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: State, meta: Mapping[str, Any], metric: float | None = None) -> None:
        """Starts saving `state` under its step, unless that exists. A higher `metric` is better.

        Raises:
          DiskFull: this or the previous save failed because the disk is full or read-only.
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
        """Waits until all checkpoints are written. Raises the same errors as `save`."""
        with DiskErrors(self.folder):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, abstract: State) -> tuple[State, dict[str, Any]]:
        """Restores the latest state with the shapes and shardings of `abstract`, and its metadata."""
        target = flax.serialization.to_state_dict(abstract)
        step = self._manager.latest_step()
        with reading(self.folder / str(step), DAMAGED):
            saved = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()),
            )
            check_object(saved["meta"])
        return flax.serialization.from_state_dict(abstract, saved["state"]), saved["meta"]

    def close(self) -> None:
        """Waits for pending saves and closes the checkpoint manager."""
        with DiskErrors(self.folder):
            self._manager.close()


class DiskErrors:
    """Context manager that converts errors of a full or read-only disk, from any library, to `DiskFull`.

    They are recognized by errno or by the message of the operating system. The status RESOURCE_EXHAUSTED is
    ambiguous, because a device that is out of memory raises it too.
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
                f"cannot write to {self.folder}: the disk is full or read-only; earlier checkpoints are "
                "intact, free some space and run the same command again"
            ) from error
