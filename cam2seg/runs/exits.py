"""How a script ends: its exit status, and the one line that says why."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

from .. import Error
from ..data.errors import DataError
from . import locks, memory, processes, signals, streams


def one_line(error: BaseException | str, longest: int = 1000) -> str:
    """The text of an error as one line. Control characters are escaped and a long text is cut."""
    text = str(error).rstrip()
    if "\nOriginal Traceback" in text:  # a worker process hands on its own traceback
        text = text.splitlines()[-1].partition("Error: ")[2]
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= longest else f"{text[:longest]} ..."


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn a ValueError of the top floor into a DataError that names the user's flag or file."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{what}: {error}") from error


def run(main: Callable, get_args: Callable) -> int:
    """Exit status of main(get_args()), as a script returns it to the shell.

    It is 0 for success, 2 with one line on standard error for bad input, 130 and 143 after Ctrl-C
    and SIGTERM, and 1 where memory ran out or another process of the run is gone. Where main
    returns an endings.Ending, its lines come last. With args.quiet nothing else goes to standard
    output, and of the Ending only the result.
    """
    with streams.unstoppable():
        return processes.end(_run(main, get_args))


def _run(main, get_args):
    memory.keep_freed_memory()
    # Pillow and torch warn about odd files, which are read or refused in one line.
    warnings.filterwarnings("ignore", module=r"PIL\.|torch\._weights_only")
    args, rank = None, processes.torchrun_world()[0]
    try:
        with signals.stop_between_steps(), open(os.devnull, "w") as nowhere:
            with redirect_stdout(nowhere) if rank else nullcontext():
                args = get_args()
            quiet = getattr(args, "quiet", False)
            with redirect_stdout(nowhere) if rank or quiet else nullcontext():
                ending = main(args)
        processes.leave()
        if ending and not rank:
            print("\n".join([ending.result, *(() if quiet else ending.then)]), flush=True)
    except (signals.Stopped, KeyboardInterrupt) as stop:
        signum = getattr(stop, "signum", signal.SIGINT)
        if not rank:
            print(f"stopped by {signal.Signals(signum).name}{_again(args)}", file=sys.stderr)
        return 128 + signum
    except (processes.Lost, RuntimeError, MemoryError) as error:
        return _broken(error, args)
    except (Error, FloatingPointError, OSError) as error:
        if processes.speaks():
            print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    finally:
        locks.unlock_all()
    return 0


def _again(args):
    """The end of a message that says how to go on; "" for a script that cannot."""
    return "; the same command with --resume goes on from here" if hasattr(args, "resume") else ""


def _broken(error, args):
    """Say what a run lacked and return status 1. Any other error is raised again."""
    text = one_line(error) or type(error).__name__
    if isinstance(error, processes.Lost):
        print(f"error: {text}; the same command with --resume goes on from the last epoch",
              file=sys.stderr)
        return 1
    if not memory.ran_out(error):
        raise error
    less = "; fewer --workers or a smaller --batch-size may help" if hasattr(args, "batch_size") \
        else ""
    print(f"error: {text}{less}{_again(args)}", file=sys.stderr)
    return 1
