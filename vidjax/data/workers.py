"""Worker processes that compute numbered items and return them in order.

Workers communicate with the main process over sockets and pass arrays in anonymous memory files, so that a
killed run leaves no semaphores or shared memory objects behind. Workers ignore Ctrl-C and SIGTERM, which the
main process handles, and exit when the main process ends, even if it is killed.
"""

import contextlib
import functools
import mmap
import multiprocessing
import os
import pickle
import queue
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing import reduction, resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback
from typing import Any

import cloudpickle

from vidjax import interrupts
from vidjax.errors import UserError

_ALIGNMENT = 64  # bytes; JAX uses arrays with this alignment without copying them
_starting = threading.Lock()  # held while a process starts, which prints a traceback if its parent exits
interrupts.before_leaving.append(functools.partial(_starting.acquire, timeout=2))


class Workers(Iterator[Any]):
    """Iterator of `make(i)` for `start <= i < stop`; worker i % count computes item i.

    The processes start when the first item is requested. Exceptions of `make` are raised in the main process.
    """

    def __init__(self, make: Callable[[int], Any], start: int, stop: int, count: int, ahead: int):
        """Prepares the workers without starting them.

        Args:
          make: computes an item from its number; sent to the workers by cloudpickle.
          start, stop: range of the items.
          count: number of processes.
          ahead: number of items that each process computes in advance.
        """
        self._make, self._next, self._stop = make, start, stop
        self._count, self._ahead = min(count, stop - start), ahead
        self._workers: list[tuple[Any, Connection]] = []
        self._closed = False
        # A separate thread starts the processes, so that an interrupt cannot leave one half started. Start
        # the thread now, because an interrupt of `Thread.start` leaves it unclear whether the thread exists.
        self._orders: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._started, self._error = threading.Event(), None
        # At exit, run before multiprocessing sends SIGTERM, which workers ignore, and waits for them.
        util.Finalize(self, _end, (self._workers, self._orders, self._started), exitpriority=1)
        threading.Thread(target=self._start, name="start data workers", daemon=True).start()

    def __next__(self) -> Any:
        if self._closed or self._next >= self._stop:
            self.close()
            raise StopIteration
        self._orders.put(True)
        self._started.wait()
        if self._error is not None:
            raise self._error
        process, connection = self._workers[self._next % self._count]
        try:
            item = _receive(connection)
            if isinstance(item, BaseException):
                raise item
            self._request(connection, self._next + self._ahead * self._count)
        except (EOFError, ConnectionError):
            process.join()
            raise UserError(_why_lost(process.exitcode)) from None
        self._next += 1
        return item

    def close(self) -> None:
        """Stops the processes."""
        self._closed = True
        _end(self._workers, self._orders, self._started)

    def _start(self) -> None:
        try:
            if self._orders.get():
                self._spawn()
        except Exception as error:
            self._error = error
        finally:
            self._started.set()

    def _spawn(self) -> None:
        resource_tracker.ensure_running()  # now, because starting it later unblocks the signals
        signal.pthread_sigmask(
            signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
        )  # inherited by the processes
        spawn, make = multiprocessing.get_context("spawn"), cloudpickle.dumps(self._make)
        for _ in range(self._count):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_work, args=(there,), name="data worker", daemon=True)
            with _starting:
                process.start()
            there.close()
            self._workers.append((process, here))
        for i in range(self._next, self._next + self._count):
            _, connection = self._workers[i % self._count]
            with contextlib.suppress(ConnectionError):  # reported when an item is requested
                connection.send_bytes(make)
                for k in range(self._ahead):
                    self._request(connection, i + k * self._count)

    def _request(self, connection: Connection, i: int) -> None:
        if i < self._stop:
            connection.send(i)


def _end(
    workers: list[tuple[Any, Connection]], orders: "queue.SimpleQueue[bool]", started: threading.Event
) -> None:
    orders.put(False)
    started.wait()
    for process, connection in workers:
        process.kill()
        connection.close()
    while workers:
        workers.pop()[0].join()


def _why_lost(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "a data worker was killed (out of memory?): lower data.workers or data.prefetch"
    how = f"died of {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
    return f"a data worker {how}: set data.workers=0 to see the error"


def _work(connection: Connection) -> None:
    """Runs the main loop of a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent closed the connection
        try:
            make = pickle.loads(connection.recv_bytes())
        except (ImportError, AttributeError, UserError) as error:
            _send(connection, ExceptionWithTraceback(error, error.__traceback__))
            return
        while True:
            i = connection.recv()
            try:
                item = make(i)
            except Exception as error:
                item = ExceptionWithTraceback(error, error.__traceback__)
            _send(connection, item)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(0)


def _send(connection: Connection, item: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(item, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in raw]
    connection.send((data, sizes))
    if not sizes:
        return
    file = _memory_file()
    try:
        os.ftruncate(file, sum(map(_padded, sizes)))
        offset = 0
        for view in raw:
            written = 0
            while written < view.nbytes:
                written += os.pwrite(file, view[written:], offset + written)
            offset += _padded(view.nbytes)
        reduction.send_handle(connection, file, None)
    finally:
        os.close(file)


def _receive(connection: Connection) -> Any:
    data, sizes = connection.recv()
    if not sizes:
        return pickle.loads(data)
    file = reduction.recv_handle(connection)
    try:
        memory = memoryview(mmap.mmap(file, sum(map(_padded, sizes))))
    finally:
        os.close(file)
    views, offset = [], 0
    for size in sizes:
        views.append(memory[offset : offset + size])
        offset += _padded(size)
    return pickle.loads(data, buffers=views)


def _padded(size: int) -> int:
    return max(1, -(-size // _ALIGNMENT)) * _ALIGNMENT


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("vidjax")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
