"""How far a long loop is, and the point at which it can be stopped."""

import sys
import time

from . import process


class Progress:
    """done/total, images per second and time left, on a terminal's error stream only."""

    def __init__(self, total, what):
        self.total, self.what, self.done, self.waited = total, what, 0, 0.0
        self.start, self.shown = time.perf_counter(), 0.0

    def timed(self, iterator):
        """The same items, adding up the seconds spent in waiting for them."""
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield item

    def add(self, n):
        """n more are done. Raises process.Stopped if a signal asked for the end."""
        self.done += n
        now = time.perf_counter()
        due = now - self.shown > 0.5 or self.done == self.total
        if due and sys.stderr.isatty() and process.first():
            self.shown, rate = now, self.done / (now - self.start)
            left = (self.total - self.done) / rate
            end = "\r" if self.done < self.total else "\r\033[K"
            print(f"{self.what}: {self.done}/{self.total}  {rate:.0f} images/s  {left:.0f} s left ",
                  end=end, file=sys.stderr, flush=True)
        process.check()
