"""Multi-host runs: joining, detection of lost processes, and joint shutdown.

Every process writes a heartbeat to the coordination service. Process 0 monitors all processes, the others
monitor process 0. A process that fails publishes the reason before it exits. The others may be blocked in a
collective that can never complete, so a thread prints the reason and exits the process.
"""

import atexit
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
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
from vidjax.data import cores
from vidjax.environment import digest_of_modules, environment
from vidjax.errors import UserError

LOST = 75  # exit code (EX_TEMPFAIL) if another process was lost; a launcher can restart the same command
_NEVER = 7 * 24 * 3600  # seconds; JAX's own heartbeat timeout ends in a stack dump, so ours must come first
_SUSPECT = 5.0  # seconds without a heartbeat after which a process is lost, once a collective has failed
_ALIVE, _FAILED, _CORES, _SAME = "vidjax/alive", "vidjax/failed", "vidjax/cores", "vidjax/same"
_MEET = "vidjax/meet"
# What must be equal on all hosts, of `vidjax.environment`.
_COMPARED = ("commit", "python", "vidjax", "jax", "jaxlib", "flax", "numpy")


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
    """Joins the other processes of a run and starts monitoring them.

    Args:
      coordinator: HOST:PORT of process 0. None detects this and the next two from the cluster environment.
      processes: number of processes.
      process: index of this process.
      timeout: seconds to wait for the others to join, and seconds without a heartbeat after which a process
        is considered lost.

    Raises:
      HostLost: the others did not join in time.
      UserError: invalid arguments, or another process has other code or package versions.
    """
    global _watch, _timeout
    port = re.fullmatch(r"\S+:(\d{1,5})", coordinator or "none:1")
    if not port or not 1 <= int(port[1]) < 2**16:
        raise UserError(f"--coordinator must be HOST:PORT, such as 10.0.0.2:8476, got {coordinator}")
    # The SIGTERM handler of JAX would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    services: list[_Service] = []

    def start(address: str, count: int, **_) -> _Service:
        services.append(_Service(address, count, timeout))
        return services[0]

    make_client = _jax.get_distributed_runtime_client

    def connect(*args, **options) -> Any:
        # Without a callback, the client aborts with a stack dump if it cannot connect. With one, `connect`
        # raises RuntimeError("std::bad_cast"), because the status cannot be passed to Python.
        global _connecting
        _connecting = True
        return make_client(*args, **options, missed_heartbeat_callback=lambda status: None)

    try:
        with (
            mock.patch.object(_jax, "get_distributed_runtime_service", start),
            mock.patch.object(_jax, "get_distributed_runtime_client", connect),
        ):
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
        raise _not_joined(e, coordinator, processes, process, timeout) from None
    if jax.process_count() > 1:
        _watch, _timeout = _Watch(timeout), timeout
        interrupts.before_leaving.append(_watch.interrupted)
        atexit.register(_watch.end)
        _share_cores(timeout)
        check_same("code", _code())


def check_same(what: str, facts: Mapping[str, Any]) -> None:
    """Checks that something is the same on all processes of the run. All of them must call this together.

    Args:
      what: a name that no other call has.
      facts: JSON-compatible values by name.

    Raises:
      UserError: process 0 has other values; the message names the host and the first few of them.
    """
    if jax.process_count() == 1:
        return
    client: Any = distributed.global_state.client
    key, milliseconds = f"{_SAME}/{what}", round(1000 * _timeout)
    mine = json.loads(json.dumps({**facts, "host": socket.gethostname()}, sort_keys=True, default=str))
    if jax.process_index() == 0:
        client.key_value_set(key, json.dumps(mine))
    first = json.loads(client.blocking_key_value_get(key, milliseconds))
    hosts = mine.pop("host"), first.pop("host")
    if odd := [k for k in sorted(first | mine) if first.get(k) != mine.get(k)]:
        shown = "; ".join(f"{k} {mine.get(k)} against {first.get(k)}" for k in odd[:4])
        more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
        raise UserError(
            f"process {jax.process_index()} on {hosts[0]} has another {what} than process 0 on {hosts[1]}: "
            f"{shown}{more}"
        )
    client.wait_at_barrier(key, milliseconds)


def meet(name: str, seconds: float) -> None:
    """Waits, on any thread, until all processes of the run have called this with the same new name."""
    if jax.process_count() > 1:
        client: Any = distributed.global_state.client
        client.wait_at_barrier(f"{_MEET}/{name}", round(1000 * seconds))


def _code() -> dict[str, str]:
    """Returns what identifies the code: versions, the commit, and a digest of the modules of vidjax."""
    found = {k: v for k, v in environment().items() if k in _COMPARED}
    return {**found, "vidjax modules": digest_of_modules()}


def _share_cores(timeout: float) -> None:
    """Counts the processes of the run that have the same cores as this one."""
    client: Any = distributed.global_state.client
    client.key_value_set(f"{_CORES}/{jax.process_index()}", cores.pool())
    client.wait_at_barrier(_CORES, round(1000 * timeout))
    pools = [pool for _, pool in client.key_value_dir_get(_CORES)]
    cores.share(pools.count(cores.pool()))


def explain(error: BaseException) -> BaseException:
    """Returns the root cause of an error: the error itself, or a `HostLost` if another process caused it.

    An error of this process is published, so that the others stop too. Call this once, before exiting.
    """
    if _watch is None:
        return error
    if not isinstance(error, UserError) and (cause := _watch.cause()):
        return cause
    if not isinstance(error, HostLost):
        _watch.publish(error)
    return error


def joined() -> bool:
    """Returns whether this process has joined a multi-host run, or tried to: JAX would wait at exit."""
    return _connecting


def shared(name: str, value: float) -> dict[str, float]:
    """Publishes a value of this process, and returns the latest ones of all processes, without waiting.

    Returns:
      Values by "process I on HOST"; on other processes than the first, only the own one.
    """
    me = f"process {jax.process_index()} on {socket.gethostname()}"
    if jax.process_count() == 1:
        return {me: value}
    client: Any = distributed.global_state.client
    folder = f"vidjax/shared/{name}"
    client.key_value_set(f"{folder}/{jax.process_index()}", json.dumps([me, value]), allow_overwrite=True)
    if jax.process_index():
        return {me: value}
    return dict(json.loads(text) for _, text in client.key_value_dir_get(folder))


class SharedLevel:
    """Shares a small number between all hosts without blocking the devices."""

    def __init__(self):
        mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=(AxisType.Auto,))
        self._sharding = NamedSharding(mesh, P("devices"))
        self._max = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))

    def share(self, level: int) -> Callable[[], int]:
        """Dispatches the number of this host. Returns a function that waits for the largest of all hosts."""
        if jax.process_count() == 1:
            return lambda: level
        local = np.full(jax.local_device_count(), level, np.int32)
        result = self._max(jax.make_array_from_process_local_data(self._sharding, local))
        return lambda: int(result)


def _not_joined(
    error: Exception, coordinator: Any, processes: Any, process: Any, timeout: float
) -> UserError:
    text = str(error).strip().splitlines()[0]
    if any(s in text for s in ("DEADLINE_EXCEEDED", "UNAVAILABLE", "bad_cast")):
        # Not code 2, with which launchers give up: hosts of a slice may start minutes apart.
        return HostLost(
            f"process {process} could not join the run at {coordinator} within {timeout:g} s: check that "
            f"process 0 runs there, that the port is open, and that all {processes} processes were started"
        )
    if None in (coordinator, processes, process):
        return UserError(
            "--distributed found no cluster environment (TPU pod, Slurm, Open MPI, Kubernetes): give "
            f"--coordinator HOST:PORT, --processes N and --process I ({text})"
        )
    where = f"--process {process} of --processes {processes} at --coordinator {coordinator}"
    return UserError(f"cannot join as {where}: {text}")


class _Service:
    """Runs `vidjax.train.coordinator` as a replacement for the service that JAX runs in this process."""

    def __init__(self, address: str, count: int, linger: float):
        numbers = map(str, (count, _NEVER, max(10, round(linger))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vidjax.train.coordinator", address, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it logs each process that did not come; `join` says so in one line
            text=True,
            start_new_session=True,  # not stopped by Ctrl-C: the other processes need it to shut down
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
    """Sends heartbeats and detects missing ones, on a separate thread."""

    def __init__(self, timeout: float):
        self._me, self._count, self._timeout = jax.process_index(), jax.process_count(), timeout
        self._client: Any = distributed.global_state.client
        self._beats: dict[int, tuple[str, float]] = {}  # the last heartbeat of each process, and its time
        self._pause = min(timeout / 10, max(1.0, self._count / 50))  # thousands of processes write less often
        self._suspicious = threading.Event()  # the main thread has an error and waits for its cause
        self._cause: HostLost | None = None
        self._found = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hosts", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stops the thread: one that is in the client while Python shuts down would crash the process."""
        self._ended.set()
        self._thread.join(_SUSPECT)

    def cause(self) -> HostLost | None:
        """Returns why a collective failed, or None if all other processes are alive."""
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
        except Exception:  # another process reported first, or the service is down
            return

    def _run(self) -> None:
        beat = 0
        while self._cause is None and not self._ended.is_set():
            beat += 1
            now = time.monotonic()
            try:
                self._client.key_value_set(f"{_ALIVE}/{self._me}/beat", str(beat), allow_overwrite=True)
                self._cause = self._failed() or self._silent(now)
            except Exception:  # the service is down, and process 0 with it
                self._cause = self._lost(0, now)
            if self._cause is None:
                self._ended.wait(self._pause)
        if self._cause is None:  # the process ends
            return
        self._found.set()
        if self._suspicious.wait(3 * self._pause):
            return  # the main thread exits the process
        print(f"vidjax: {self._cause}", file=sys.stderr, flush=True)
        os._exit(self._cause.code)  # the main thread is blocked in a collective

    def _failed(self) -> HostLost | None:
        rows = [json.loads(value) for _, value in self._client.key_value_dir_get(_FAILED)]
        if not rows or rows[0]["process"] == self._me:
            return None
        return HostLost("process {process} {text}".format(**rows[0]), rows[0]["code"])

    def _silent(self, now: float) -> HostLost | None:
        """Checks heartbeats: process 0 those of all, the others only that of process 0 (linear traffic)."""
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
            f"process {process} was lost, no heartbeat for {silence:.0f} s: run the same command on all "
            "hosts again to resume from the last checkpoint"
        )


_watch: _Watch | None = None
_timeout = 60.0  # seconds, of `join`
_connecting = False
