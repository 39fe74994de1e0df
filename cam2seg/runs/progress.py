"""How a long loop tells its caller how far it is.

A loop of this package prints nothing. It calls report(event, **facts), and the scripts pass a
Console, which turns the events into lines:

    report("step", what="fold 0 (1 of 5), epoch 3/20", done=128, total=2904, unit="images",
           rate=81.0, left=34.0, loss=0.21)
    report("epoch", title="fold 0 (1 of 5), ", epoch=3, epochs=20, loss=0.21, left=610.0, ...)
    report("note", text="maps of features.8: 4 x 4 cells for 128 x 128 pixels")
    report("warning", text="class 1: the typical mask covers more than half of the image")
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import processes

if TYPE_CHECKING:
    from torch import Tensor

BAR, LINE = 0.5, 60.0  # seconds from one sign of life to the next, on a terminal and elsewhere
LONG = 5.0  # seconds of a step that gets a line where there is no terminal


def silent(event: str, **facts: Any) -> None:
    """A report that does nothing: the default of every loop."""


class Progress:
    """Counts what a loop has done, reports it, and raises Stopped where the run shall stop."""

    def __init__(self, total: int, what: str, report: Callable = silent, unit: str = "images",
                 done: int = 0):
        """done: how many of the total an earlier run has done, which say nothing of the rate."""
        self.total, self.what, self.report, self.unit = total, what, report, unit
        self.done, self.before = done, done
        self.waited, self.start = 0.0, time.perf_counter()

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

    def over(self, items: Iterable) -> Iterator:
        """Yield the same items; each is done when the next one is asked for."""
        for item in items:
            yield item
            self.add(1)

    def add(self, n: int, loss: "Tensor | None" = None) -> None:
        """Say that n more are done. Raises Stopped if a signal has asked for the end.

        loss: that of the step, as a tensor, because reading it would make the CPU wait for the
        device; a report that shows it reads it.
        """
        self.done += n
        rate = (self.done - self.before) / (time.perf_counter() - self.start)
        self.report("step", what=self.what, done=self.done, total=self.total, unit=self.unit,
                    rate=rate, left=(self.total - self.done) / rate if rate else 0.0, loss=loss)
        processes.stop_if_asked()


def over(items: Sequence, what: str, report: Callable) -> Iterator:
    """Yield the same items and report each that is done; see Progress.over."""
    return Progress(len(items), what, report).over(items)


class Console:
    """A report for people: lines on standard output, and a bar on a terminal's standard error.

    Where standard error is no terminal, a long step that is no part of an epoch has a line at its
    end, and one every minute until then. With quiet there are no signs of life; exits.run then lets
    standard output lead nowhere.
    """

    def __init__(self, quiet: bool = False):
        self.quiet, self.what, self.began, self.shown = quiet, None, 0.0, 0.0

    def __call__(self, event: str, **facts: Any) -> None:
        if processes.is_first():
            getattr(self, event)(**facts)

    def step(self, what: str, done: int, total: int, in_epoch: bool = False, **more: Any) -> None:
        """Redraw the bar, or print a line where there is no terminal, now and then and at the end.

        in_epoch: whether the step is a part of an epoch, which has a line of its own. more: unit,
        rate, left and loss.
        """
        now, bar = time.perf_counter(), sys.stderr.isatty()
        if self.what != what:
            self.what, self.began, self.shown = what, now, now - BAR
        if bar:
            due = done >= total or now - self.shown >= BAR
        else:
            due = not in_epoch and now - (self.began if done >= total else self.shown) > (
                LONG if done >= total else LINE)
        if self.quiet or not due:
            return
        self.shown = now
        line = step_line(what, done, total, **more)
        if bar:
            width = shutil.get_terminal_size().columns - 1  # a longer line would not be redrawn
            print(f"\r\033[K{line[:width]}", end="" if done < total else "\r\033[K",
                  file=sys.stderr, flush=True)
        else:
            print(line, flush=True)

    def epoch(self, title: str, epochs: int, left: float, **row: Any) -> None:
        """Print the line of an epoch; row: its line of log.jsonl (see training.fit)."""
        print(f"{title}epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}  "
              f"val {row['val_loss']:.4f}  lr {row['lr'][-1]:.1e}  "
              f"{row['images_per_second']} images/s  {duration(left)} left", flush=True)

    def note(self, text: str) -> None:
        """Print a line of text."""
        print(text, flush=True)

    def warning(self, text: str) -> None:
        """Print a line of text that --quiet leaves in."""
        print(text, file=sys.stderr, flush=True)


def step_line(what: str, done: int, total: int, unit: str = "images", rate: float = 0.0,
              left: float = 0.0, loss: "Tensor | float | None" = None) -> str:
    """One line that says how far a step is: how many are done, how fast, and how long it lasts."""
    said = f"{what}: {done}/{total} {unit}  {rate:.3g} {unit}/s"
    if done < total:
        said += f"  {duration(left)} left"
    return said if loss is None else f"{said}  loss {float(loss):.4f}"


def duration(seconds: float) -> str:
    """A time for people: "34 s", "12 min" or "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
