"""Signals that ask a run to stop. The run ends its present step first, and then stops."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_asked = []  # the signal that asked to stop, if one did


class Stopped(Exception):
    """A signal asked the run to stop; `signum` is its number."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def asked_to_stop() -> int:
    """Number of the signal that asked this process to stop, 0 if none did."""
    return _asked[0] if _asked else 0


@contextmanager
def stop_between_steps() -> Iterator[None]:
    """Let SIGINT and SIGTERM take effect between two steps instead of in the middle of one.

    The first signal is remembered, and the next call of processes.stop_if_asked or
    processes.all_reduce_or_stop raises Stopped. A second signal ends the process at once. It counts
    as a second one only after a second has passed, because a launcher hands on a signal that the
    terminal has already sent to the whole group.
    """
    since = time.monotonic()

    def ask(signum, frame):
        nonlocal since
        if _asked and time.monotonic() - since > 1:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        elif not _asked:
            since = time.monotonic()
            _asked.append(signum)

    _asked.clear()
    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
        _asked.clear()


def leave_to_the_main_process(worker: int) -> None:
    """Make a DataLoader worker ignore SIGINT, and SIGTERM from all but the main process.

    A signal can reach all processes of a group. The main process decides what to do about it. It
    ends its workers by SIGTERM itself, and waits for them, when it exits before they are told to
    end. Where the sender of a signal cannot be asked for (macOS), SIGTERM ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_by_the_main_process, daemon=True).start()


def _end_by_the_main_process():
    main = multiprocessing.parent_process().pid
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != main:
        pass
    os._exit(0)
