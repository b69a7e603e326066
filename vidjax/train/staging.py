"""Checkpoints on S3, which orbax does not write to: written to the local disk, then uploaded.

A mounted bucket is no alternative: orbax renames files and folders, which Mountpoint for S3 does not support.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from typing import Any

import flax
import jax
import orbax.checkpoint as ocp
from etils import epath

from vidjax import files
from vidjax.checkpoint_io import COMMIT, check_object, find_checkpoint, readable, reading
from vidjax.data.cache_folder import cache_dir
from vidjax.errors import UserError
from vidjax.train.checkpoint import DAMAGED, DiskErrors
from vidjax.train.hosts import meet
from vidjax.train.state import State

_TIMEOUT = 3600.0  # seconds that hosts wait for the upload of the slowest one


class StagedCheckpointer:
    """Manages the checkpoints of a workdir on an object store. Has the methods of `Checkpointer`.

    Each host writes its shards to its own disk, uploads them in the background and removes them. Arrays are
    stored in one file per shard, so the files of all hosts together are a checkpoint in the format of orbax.
    When all hosts have uploaded theirs, the first one writes `COMMIT`. A checkpoint without this file is
    ignored, and removed at the next start.
    """

    def __init__(self, workdir: epath.PathLike, keep: int = 1, keep_every: int | None = None):
        """`keep_every`: the checkpoints at multiples of so many steps are kept as well."""
        self.folder = files.absolute(workdir) / "checkpoints"
        self._keep, self._keep_every = keep, keep_every
        self._lead = jax.process_index() == 0
        run = hashlib.sha256(os.fspath(self.folder).encode()).hexdigest()[:16]
        self._staging = cache_dir() / "checkpoints" / f"{run}.{jax.process_index()}"
        shutil.rmtree(self._staging, ignore_errors=True)  # of a run that was killed
        own = ocp.options.MultiprocessingOptions(primary_host=None)  # each host writes all metadata
        handler = ocp.CompositeCheckpointHandler(
            state=ocp.StandardCheckpointHandler(use_ocdbt=False, multiprocessing_options=own),
            meta=ocp.JsonCheckpointHandler(multiprocessing_options=own),
            metrics=ocp.JsonCheckpointHandler("metrics", multiprocessing_options=own),
            composite_options=ocp.CompositeOptions(multiprocessing_options=own),
        )
        self._writer = ocp.AsyncCheckpointer(handler, multiprocessing_options=own)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "upload")
        self._upload: concurrent.futures.Future | None = None
        if self._lead:
            for step, complete in self._steps().items():
                if not complete:
                    self._remove(step)

    def latest_step(self) -> int | None:
        """Returns the step of the latest complete checkpoint, or None."""
        return max((step for step, complete in self._steps().items() if complete), default=None)

    def save(self, state: State, meta: Mapping[str, Any], metric: float | None = None) -> None:
        """Starts saving `state` under its step, unless that exists. A higher `metric` is better.

        Raises:
          DiskFull: this or the previous save failed because the local disk is full or read-only.
        """
        step = int(state.step)
        self.wait()
        if self._steps().get(step):
            return
        items: dict[str, Any] = {
            "state": ocp.args.StandardSave(flax.serialization.to_state_dict(state)),
            "meta": ocp.args.JsonSave(dict(meta)),
        }
        if metric is not None:
            items["metrics"] = ocp.args.JsonSave({"metric": float(metric)})
        with DiskErrors(self._staging):
            self._writer.save(self._staging / str(step), args=ocp.args.Composite(**items))
        self._upload = self._thread.submit(self._publish, step)

    def wait(self) -> None:
        """Waits until the last checkpoint is complete. Raises the same errors as `save`."""
        if self._upload:
            upload, self._upload = self._upload, None
            with DiskErrors(self._staging):
                upload.result()

    def restore(self, abstract: State) -> tuple[State, dict[str, Any]]:
        """Restores the latest state with the shapes and shardings of `abstract`, and its metadata."""
        target = flax.serialization.to_state_dict(abstract)
        folder = self.folder / str(self.latest_step())
        with reading(folder, DAMAGED), readable(folder, inside=self._staging) as copy:
            saved = self._writer.restore(
                copy,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()),
            )
            check_object(saved["meta"])
        return flax.serialization.from_state_dict(abstract, saved["state"]), saved["meta"]

    def close(self) -> None:
        """Waits for pending saves."""
        self.wait()
        self._writer.close()
        self._thread.shutdown()
        shutil.rmtree(self._staging, ignore_errors=True)

    def _publish(self, step: int) -> None:
        """Uploads what this host wrote of a checkpoint and, on the first host, completes it."""
        self._writer.wait_until_finished()
        local, target = self._staging / str(step), self.folder / str(step)
        paths = [path for path in local.rglob("*") if path.is_file() and path != local / COMMIT]
        names = [os.fspath(target / path.relative_to(local)) for path in paths]
        files.filesystem(target).put([*map(str, paths)], names)
        shutil.rmtree(local)
        meet(f"uploaded/{step}", _TIMEOUT)
        if self._lead:
            (target / COMMIT).write_text("")
        meet(f"complete/{step}", _TIMEOUT)
        if self._lead:
            self._prune()

    def _prune(self) -> None:
        """Removes all but the latest `keep` checkpoints, the best one and multiples of `keep_every`."""
        steps = sorted(step for step, complete in self._steps().items() if complete)
        keep = {*steps[-self._keep :], *(s for s in steps if self._keep_every and s % self._keep_every == 0)}
        with contextlib.suppress(UserError):  # none was evaluated
            keep.add(int(find_checkpoint(self.folder, "best").name))
        for step in steps:
            if step not in keep:
                self._remove(step)

    def _steps(self) -> dict[int, bool]:
        """Returns the steps that have files, and whether they are complete."""
        names = files.objects(self.folder)
        steps = {int(first) for name in names if (first := name.split("/")[0]).isdigit()}
        return {step: f"{step}/{COMMIT}" in names for step in steps}

    def _remove(self, step: int) -> None:
        """Removes a checkpoint, starting with the file that makes it complete."""
        folder = self.folder / str(step)
        (folder / COMMIT).unlink(missing_ok=True)
        files.filesystem(folder).rm(os.fspath(folder), recursive=True)
