"""Several processes as one run: how they join, notice a lost one, and end together.

Every process writes a heartbeat to the coordination service. Process 0 watches all of them, the others watch
process 0. A process that fails publishes why before it exits. The others may be blocked in a collective that
can never complete, so a thread prints the reason and ends them.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed
from jax._src.lib import _jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidjax import interrupts
from vidjax.errors import UserError

LOST = 75  # exit code (EX_TEMPFAIL): another process was lost; a launcher can start the same command again
_NEVER = 7 * 24 * 3600  # seconds; JAX's own heartbeat time-out ends in a stack dump, so ours must come first
_SUSPECT = 5.0  # seconds of silence after which a process counts as lost once a collective has failed
_ALIVE, _FAILED = "vidjax/alive", "vidjax/failed"


class HostLost(UserError):
    """Another process of the run failed or was lost. `code` is the exit code."""

    def __init__(self, message: str, code: int = LOST):
        super().__init__(message)
        self.code = code


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: float = 60.0,
) -> None:
    """Joins the other processes of a run and starts watching them.

    Args:
      coordinator: HOST:PORT of process 0; like the next two, None where the cluster environment provides it.
      processes: how many processes there are.
      process: the index of this one.
      timeout: seconds to wait for the others to join, and seconds of silence after which one counts as lost.

    Raises:
      UserError: arguments that do not describe a run, or a coordinator that cannot be reached in time.
    """
    global _watch
    # JAX's handler of SIGTERM would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    services: list[_Service] = []

    def start(address: str, count: int, **_) -> _Service:
        services.append(_Service(address, count, timeout))
        return services[0]

    try:
        with mock.patch.object(_jax, "get_distributed_runtime_service", start):
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                initialization_timeout=max(1, round(timeout)),
                heartbeat_timeout_seconds=_NEVER,
            )
    except (ValueError, TypeError, RuntimeError) as e:
        for service in services:
            service.shutdown()
        raise UserError(_why_not_joined(e, coordinator, processes, process, timeout)) from None
    if jax.process_count() > 1:
        _watch = _Watch(timeout)
        interrupts.before_leaving.append(_watch.interrupted)


def explain(error: BaseException) -> BaseException:
    """The cause of the error that ends this process: itself, or the `HostLost` that it is a consequence of.

    An error of this process's own is published, so that the others end too. Call it once, before exiting.
    """
    if _watch is None:
        return error
    if not isinstance(error, UserError) and (cause := _watch.cause()):
        return cause
    if not isinstance(error, HostLost):
        _watch.publish(error)
    return error


def joined() -> bool:
    """Whether this process is one of several."""
    return _watch is not None


class SharedFlag:
    """Tells all hosts whether one of them has raised a flag, without making a device wait."""

    def __init__(self):
        mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Auto,))
        self._sharding = NamedSharding(mesh, P("devices"))
        self._any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))

    def share(self, raised: bool) -> Callable[[], bool]:
        """Dispatches this host's flag. Returns a function that waits for the flags of all."""
        if jax.process_count() == 1:
            return lambda: raised
        local = np.full(jax.local_device_count(), raised, np.int32)
        result = self._any(jax.make_array_from_process_local_data(self._sharding, local))
        return lambda: bool(result)


def _why_not_joined(error: Exception, coordinator: Any, processes: Any, process: Any, timeout: float) -> str:
    text = str(error).strip().splitlines()[0]
    if "DEADLINE_EXCEEDED" in text or "UNAVAILABLE" in text:
        return (
            f"process {process} could not join the run at {coordinator} within {timeout:g} s: check that "
            f"process 0 runs there, that the port is open, and that all {processes} processes were started"
        )
    if None in (coordinator, processes, process):
        return (
            "--distributed found no cluster environment (TPU pod, Slurm, Open MPI, Kubernetes): give "
            f"--coordinator HOST:PORT, --processes N and --process I ({text})"
        )
    where = f"--process {process} of --processes {processes} at --coordinator {coordinator}"
    return f"cannot join as {where}: {text}"


class _Service:
    """Starts `vidjax.train.coordinator`; stands in for the service that JAX would run in this process."""

    def __init__(self, address: str, count: int, linger: float):
        numbers = map(str, (count, _NEVER, max(10, round(linger))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vidjax.train.coordinator", address, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C is for the processes that need the service to stop
        )
        assert self._process.stdout  # a pipe, see above
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the coordination service cannot listen on {address}")

    def shutdown(self) -> None:
        try:
            self._process.communicate("done", timeout=10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()


class _Watch:
    """Sends heartbeats and notices missing ones, on a thread of its own."""

    def __init__(self, timeout: float):
        self._me, self._count, self._timeout = jax.process_index(), jax.process_count(), timeout
        self._client: Any = distributed.global_state.client
        self._beats: dict[int, tuple[str, float]] = {}  # the last one of each process, and when it was new
        self._pause = min(timeout / 10, max(1.0, self._count / 50))  # thousands of processes write less often
        self._suspicious = threading.Event()  # the main thread met an error and waits for its cause
        self._cause: HostLost | None = None
        self._found = threading.Event()
        threading.Thread(target=self._run, name="hosts", daemon=True).start()

    def cause(self) -> HostLost | None:
        """Why a collective failed; None where every other process is alive."""
        self._suspicious.set()
        self._found.wait(min(_SUSPECT, self._timeout) + 3 * self._pause)
        return self._cause

    def publish(self, error: BaseException) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._report(self._me, f"stopped: {lines[0]}", 2 if isinstance(error, UserError) else 1)

    def interrupted(self) -> None:
        self._report(self._me, "was interrupted", LOST)

    def _report(self, process: int, text: str, code: int) -> None:
        row = {"process": process, "text": text, "code": code}
        try:
            self._client.key_value_set(f"{_FAILED}/first", json.dumps(row))
        except Exception:  # another process was first, or the service is gone
            return

    def _run(self) -> None:
        beat = 0
        while self._cause is None:
            beat += 1
            now = time.monotonic()
            try:
                self._client.key_value_set(f"{_ALIVE}/{self._me}/beat", str(beat), allow_overwrite=True)
                self._cause = self._failed() or self._silent(now)
            except Exception:  # the service is gone, and process 0 with it
                self._cause = self._lost(0, now)
            if self._cause is None:
                time.sleep(self._pause)
        self._found.set()
        if self._suspicious.wait(3 * self._pause):
            return  # the main thread ends the process
        print(f"vidjax: {self._cause}", file=sys.stderr, flush=True)
        os._exit(self._cause.code)  # the main thread is in a collective that will not end

    def _failed(self) -> HostLost | None:
        rows = [json.loads(value) for _, value in self._client.key_value_dir_get(_FAILED)]
        if not rows or rows[0]["process"] == self._me:
            return None
        return HostLost("process {process} {text}".format(**rows[0]), rows[0]["code"])

    def _silent(self, now: float) -> HostLost | None:
        """Process 0 looks at all, the others at process 0, so that the traffic stays linear."""
        rows = self._client.key_value_dir_get(_ALIVE if self._me == 0 else f"{_ALIVE}/0")
        for key, beat in rows:
            process = int(key.split("/")[-2])
            if self._beats.get(process, ("", 0.0))[0] != beat:
                self._beats[process] = beat, now
        for process in range(self._count) if self._me == 0 else [0]:
            if process != self._me and (cause := self._lost(process, now)):
                self._report(process, str(cause).partition(" ")[2].partition(" ")[2], LOST)
                return cause
        return None

    def _lost(self, process: int, now: float) -> HostLost | None:
        silence = now - self._beats.setdefault(process, ("", now))[1]
        limit = min(_SUSPECT, self._timeout) if self._suspicious.is_set() else self._timeout
        if silence <= limit:
            return None
        return HostLost(
            f"process {process} was lost, no sign of life for {silence:.0f} s: run the same command on all "
            "hosts again to resume from the last checkpoint"
        )


_watch: _Watch | None = None
