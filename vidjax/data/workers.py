"""Worker processes that compute numbered items and return them in order.

Workers communicate with the main process over sockets and pass arrays in anonymous memory files, so that a
killed run leaves no semaphores or shared memory objects behind. Workers ignore Ctrl-C and SIGTERM, which the
main process handles, and exit when the main process ends, even if it is killed.

Reading a video, which can crash or stall a process, is marked by `reading`. If it kills its worker, the
worker is started again and computes the item again, in which `reading` this video raises `DecodeError`.
"""

import contextlib
import functools
import mmap
import multiprocessing
import os
import pickle
import queue
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import reduction, resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback
from typing import Any, NamedTuple

import cloudpickle
from absl import logging

from vidjax import interrupts
from vidjax.data import worker_process
from vidjax.data.decode import DecodeError
from vidjax.errors import UserError

_ALIGNMENT = 64  # bytes; JAX uses arrays with this alignment without copying them
_starting = threading.Lock()  # held while a process starts, which prints a traceback if its parent exits
interrupts.before_leaving.append(functools.partial(_starting.acquire, timeout=2))
_READING = struct.Struct("qd1000s")  # what a worker reads: number or -1, timeout in seconds, name
_DEATHS = 20  # more in one item are not due to single videos


class Workers(Iterator[Any]):
    """Iterator of `make(i)` for `start <= i < stop`; worker i % count computes item i.

    The processes start when the first item is requested. Exceptions of `make` are raised in the main process.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        start: int,
        stop: int,
        count: int,
        ahead: int,
        lost: dict[int, str] | None = None,
    ):
        """Prepares the workers without starting them.

        Args:
          make: computes an item from its number; sent to the workers by cloudpickle.
          start, stop: range of the items.
          count: number of processes.
          ahead: number of items that each process computes in advance.
          lost: numbers of the videos that killed a worker, and how; extended by those that are found.
        """
        self._next, self._stop = start, stop
        self._count, self._ahead = min(count, stop - start), ahead
        self._lost = {} if lost is None else lost
        self._late: set[int] = set()  # videos that took too long once
        self._closed = False
        self._pool = _Pool(make)
        # At exit, run before multiprocessing sends SIGTERM, which workers ignore, and waits for them.
        util.Finalize(self, self._pool.end, exitpriority=1)

    def __next__(self) -> Any:
        if self._closed or self._next >= self._stop:
            self.close()
            raise StopIteration
        if not self._pool.workers:
            self._pool.start(range(self._count))
            self._request(range(self._next, self._next + self._ahead * self._count))
        item = self._receive(self._next % self._count)
        if isinstance(item, BaseException):
            raise item
        self._request([self._next + self._ahead * self._count])
        self._next += 1
        return item

    def close(self) -> None:
        """Stops the processes."""
        self._closed = True
        self._pool.end()

    def _request(self, items: Iterable[int]) -> None:
        for i in items:
            if i < self._stop:
                with contextlib.suppress(ConnectionError):  # noticed when the item is received
                    self._pool.workers[i % self._count].connection.send((i, self._lost))

    def _receive(self, k: int) -> Any:
        """Returns the next item of worker k, restarting it whenever a video of the item kills it."""
        for _ in range(_DEATHS):
            worker = self._pool.workers[k]
            try:
                return _receive(worker.connection)
            except (EOFError, ConnectionError):
                worker.process.join()
            code = worker.process.exitcode
            number, timeout, name = _READING.unpack_from(worker.memory)
            how = f"ended with exit code {code}" if code >= 0 else f"died of {signal.Signals(-code).name}"
            if number < 0 or code == -signal.SIGKILL:
                break
            if code != -signal.SIGALRM:
                self._lost[number] = f"the data worker that read it {how}"
            elif number in self._late:
                self._lost[number] = f"reading it took longer than data.timeout={timeout:g} seconds"
            self._late.add(
                number
            )  # read again what is late once, because the machine may have been suspended
            self._pool.start([k])
            self._request(range(self._next, self._next + self._ahead * self._count, self._count))
        during = f" while it read {name.rstrip(bytes(1)).decode(errors='replace')}" if number >= 0 else ""
        if code == -signal.SIGKILL:
            raise UserError(
                f"a data worker was killed{during} (out of memory?): lower data.workers or data.prefetch"
            )
        raise UserError(f"a data worker {how}{during}: set data.workers=0 to see the error")


class _Worker(NamedTuple):
    process: Any
    connection: Connection
    memory: mmap.mmap  # shared with the process, see `_READING`


class _Pool:
    """The processes of `Workers`; `workers` are those that have been started, by number.

    A separate thread starts them, so that an interrupt cannot leave one half started.
    """

    def __init__(self, make: Callable[[int], Any]):
        self.workers: dict[int, _Worker] = {}
        self._make, self._ending = make, False
        self._orders: queue.SimpleQueue[Sequence[int]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        # Start the thread now, because an interrupt of `Thread.start` leaves it unclear whether it exists.
        threading.Thread(target=self._run, name="start data workers", daemon=True).start()

    def start(self, numbers: Sequence[int]) -> None:
        """Starts workers, in place of those that died."""
        self._orders.put(numbers)
        error = self._results.get()
        if error is not None:
            raise error

    def end(self) -> None:
        """Stops the processes and the thread."""
        self._ending = True
        self._orders.put(())
        self._ended.wait()
        for worker in self.workers.values():
            worker.process.kill()
            worker.connection.close()
        while self.workers:
            self.workers.popitem()[1].process.join()

    def _run(self) -> None:
        try:
            while not self._ending and (numbers := self._orders.get()):
                try:
                    self._start(numbers)
                except Exception as error:
                    self._results.put(error)
                else:
                    self._results.put(None)
        finally:
            self._ended.set()

    def _start(self, numbers: Sequence[int]) -> None:
        make = cloudpickle.dumps(self._make)
        resource_tracker.ensure_running()  # now, because starting it later unblocks the signals
        signal.pthread_sigmask(
            signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)
        )  # inherited by the processes
        spawn, files = multiprocessing.get_context("spawn"), []
        for k in numbers:
            here, there = spawn.Pipe()
            file = _memory_file()
            os.ftruncate(file, _READING.size)
            memory = mmap.mmap(file, _READING.size)
            _READING.pack_into(memory, 0, -1, 0.0, b"")
            process = spawn.Process(target=worker_process.run, args=(there,), name="data worker", daemon=True)
            with _starting:
                process.start()
            there.close()
            self.workers[k] = _Worker(process, here, memory)
            files.append(file)
        for k, file in zip(numbers, files):
            with contextlib.suppress(ConnectionError):  # noticed when an item is received
                self.workers[k].connection.send_bytes(make)
                reduction.send_handle(self.workers[k].connection, file, self.workers[k].process.pid)
            os.close(file)


_lost: dict[int, str] = {}  # in a worker: the videos that killed one, and how
_memory: mmap.mmap | None = None  # in a worker: shared with the main process, see `_READING`
_running: dict[object, tuple[str, float, float]] = {}  # in the main process: name, timeout, when it is over


@contextlib.contextmanager
def reading(number: int, name: str, timeout: float) -> Iterator[None]:
    """Context in which a video is read.

    In a worker, reading that takes longer than `timeout` seconds ends the process. On a thread of the main
    process, where native code cannot be stopped, it only logs a warning.

    Args:
      number: identifies the video among those of `Workers`.
      name: of the video, for messages.
      timeout: seconds.

    Raises:
      DecodeError: reading this video killed a worker before.
    """
    if _memory is None:
        _start_watch()
        key = object()
        _running[key] = name, timeout, time.monotonic() + timeout
        try:
            yield
        finally:
            _running.pop(key, None)
        return
    if number in _lost:
        raise DecodeError(f"{name}: {_lost[number]}")
    _READING.pack_into(_memory, 0, number, timeout, name.encode(errors="replace"))
    signal.setitimer(signal.ITIMER_REAL, timeout)  # SIGALRM ends the process, also in native code
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _READING.pack_into(_memory, 0, -1, 0.0, b"")


@functools.cache
def _start_watch() -> None:
    threading.Thread(target=_watch, name="watch data threads", daemon=True).start()


def _watch() -> None:
    """Warns of videos that take too long to read on a thread."""
    while True:
        time.sleep(0.2)
        for key, (name, timeout, end) in list(_running.items()):
            if time.monotonic() > end and _running.pop(key, None):
                text = "reading %s takes longer than data.timeout=%g seconds; data.workers=1 would skip it"
                logging.warning(text, name, timeout)


def work(connection: Connection) -> None:
    """Runs the main loop of a worker."""
    global _memory
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent closed the connection
        data = connection.recv_bytes()
        file = reduction.recv_handle(connection)
        _memory = mmap.mmap(file, _READING.size)
        os.close(file)
        try:
            make = pickle.loads(data)
        except (ImportError, AttributeError, UserError) as error:
            _send(connection, ExceptionWithTraceback(error, error.__traceback__))
            return
        while True:
            i, lost = connection.recv()
            _lost.update(lost)
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
