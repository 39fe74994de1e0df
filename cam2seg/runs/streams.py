"""Standard output and standard error that cannot stop a run, whoever has ceased to read them."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO


class Unstoppable:
    """A text stream that takes what is written to it, even where nothing behind it can.

    The reader of a pipe may be gone (`| head -1`), a terminal closed or a disk full. From the first
    such error on, the text is dropped.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text, or drop it."""
        try:
            return self.stream.write(text)
        except OSError:
            self._drop_all()
            return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop what it still holds."""
        try:
            self.stream.flush()
        except OSError:
            self._drop_all()

    def _drop_all(self):
        nowhere = open(os.devnull, "w")
        try:
            # Python flushes what the old stream still holds as it exits, and must not fail there.
            os.dup2(nowhere.fileno(), self.stream.fileno())
        except (OSError, io.UnsupportedOperation):
            pass  # a stream of a test or of another program has no file behind it
        self.stream = nowhere


@contextmanager
def unstoppable() -> Iterator[None]:
    """Let nothing that happens to standard output and standard error stop what the block does.

    A stream that was closed when the process began (`>&-`) leads nowhere, and no file that is
    opened later takes its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    out, err = (Unstoppable(stream or open(os.devnull, "w")) for stream in (sys.stdout, sys.stderr))
    for stream in (out, err):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show must not stop us
            stream.reconfigure(errors="backslashreplace")
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
