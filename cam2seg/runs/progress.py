"""How a long loop tells its caller how far it is.

A loop of this package prints nothing. It calls report(event, **facts), and the scripts pass a
Console, which turns the events into lines:

    report("step", what="epoch 3/20", done=128, total=2904, rate=81.0, left=34.0)
    report("epoch", out="runs/cls/fold0", epoch=3, epochs=20, loss=0.21, val_loss=0.3, ...)
    report("note", text="maps of features.8: 4 x 4 cells for 128 x 128 pixels")
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import processes


def silent(event: str, **facts: Any) -> None:
    """A report that does nothing: the default of every loop."""


class Progress:
    """Counts what a loop has done, reports it, and raises Stopped where the run shall stop."""

    def __init__(self, total: int, what: str, report: Callable = silent):
        self.total, self.what, self.report = total, what, report
        self.done, self.waited, self.start = 0, 0.0, time.perf_counter()

    def timed(self, iterator: Iterator) -> Iterator:
        """Yield the same items and add the seconds spent in waiting for them to self.waited."""
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield item

    def add(self, n: int) -> None:
        """Say that n more images are done. Raises Stopped if a signal has asked for the end."""
        self.done += n
        rate = self.done / (time.perf_counter() - self.start)
        self.report("step", what=self.what, done=self.done, total=self.total, rate=rate,
                    left=(self.total - self.done) / rate if rate else 0.0)
        processes.stop_if_asked()


class Console:
    """A report for people: lines on standard output, and a bar on a terminal's standard error."""

    def __init__(self):
        self.shown = 0.0

    def __call__(self, event: str, **facts: Any) -> None:
        if processes.is_first():
            getattr(self, event)(**facts)

    def step(self, what: str, done: int, total: int, rate: float, left: float) -> None:
        """Redraw the bar, at most twice a second and at the end; only on a terminal."""
        now = time.perf_counter()
        if sys.stderr.isatty() and (now - self.shown > 0.5 or done == total):
            self.shown = now
            end = "\r" if done < total else "\r\033[K"
            print(f"{what}: {done}/{total}  {rate:.0f} images/s  {left:.0f} s left ",
                  end=end, file=sys.stderr, flush=True)

    def epoch(self, out: Path | str, epochs: int, **row: Any) -> None:
        """Print the line of an epoch; row: its line of log.jsonl (see training.fit)."""
        print(f"{out}  epoch {row['epoch']}/{epochs}  loss {row['loss']:.4f}  "
              f"val {row['val_loss']:.4f}  lr {row['lr'][-1]:.1e}  "
              f"{row['images_per_second']} images/s", flush=True)

    def note(self, text: str) -> None:
        """Print a line of text."""
        print(text, flush=True)
