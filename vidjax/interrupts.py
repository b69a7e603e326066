"""Ctrl-C and SIGTERM: clean shutdown within seconds, even while XLA compiles.

Python runs signal handlers on the main thread between bytecode instructions, so not during a long XLA
compilation, and an exception raised by a handler can be lost in a callback. A second thread therefore also
receives signals through the wakeup file descriptor. It gives the main thread `GRACE` seconds to unwind and
then exits the process. Inside `saving`, the main thread saves after the current step and stops; a second
signal exits immediately.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

GRACE = 3.0  # seconds


class Interrupted(KeyboardInterrupt):
    """Raised on the main thread by the first signal received outside `saving`."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Stopped(Exception):
    """An evaluation was stopped because a process of the run received a signal."""


class _Signals:
    def __init__(self):
        self.requested = False  # a signal was received inside `saving`
        self.saving = False
        self._closed = threading.Event()
        self._received, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        self._wakeup = wakeup
        self._old = {s: signal.signal(s, self._on_main_thread) for s in (signal.SIGINT, signal.SIGTERM)}
        self._old_fd = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        self._old_hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
        threading.Thread(target=self._watch, name="interrupts", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        sys.unraisablehook = self._old_hook
        signal.set_wakeup_fd(self._old_fd)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._wakeup.close()  # ends the thread

    def _on_main_thread(self, number: int, frame: object) -> None:
        global _raised
        if self.saving:
            self.requested = True
        else:
            _raised = 128 + number
            raise Interrupted(number)

    def _on_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Ignores an `Interrupted` raised in a callback, because `_watch` exits the process."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self._old_hook(unraisable)

    def _watch(self) -> None:
        count = 0
        while received := self._received.recv(1):
            number = received[0]
            if number not in self._old:
                continue
            count += 1
            if count == 1 and self.saving:
                continue
            if count == 1 and self._closed.wait(GRACE):
                return
            leave(128 + number)


_signals: _Signals | None = None
_raised: int | None = None  # the exit code of the signal that raised `Interrupted`
before_leaving: list[Callable[[], object]] = []  # called by `leave`, on any thread


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handles signals inside the context. No-op if nested or not on the main thread."""
    global _signals, _raised
    if _signals is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _signals, _raised = _Signals(), None
    try:
        yield
    finally:
        _signals.close()
        _signals = None


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """Makes the first signal only set `requested`; the caller is responsible for saving and stopping."""
    with handled():
        signals = _signals
        if signals is not None:
            signals.saving = True
        try:
            yield
        finally:
            if signals is not None:
                signals.saving = False


def requested() -> bool:
    """Returns whether a signal was received inside `saving`."""
    return _signals is not None and _signals.requested


def raised() -> int | None:
    """Returns the exit code if a signal raised `Interrupted`, even if another error has replaced it."""
    return _raised


def leave(code: int) -> None:
    """Exits without interpreter shutdown, which can crash while XLA and decoding threads are running."""
    for step in (*before_leaving, lambda: print("vidjax: interrupted", file=sys.stderr), sys.stdout.flush):
        with contextlib.suppress(Exception):
            step()
    os._exit(code)
