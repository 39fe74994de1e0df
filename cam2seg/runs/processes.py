"""The processes of a run that torchrun starts, and what they tell each other.

torchrun starts a script once for each process. After join() they act as one run. Without torchrun
there is one process: every function here then returns at once and communicates with nobody. Only
the first process (rank 0) writes files.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .signals import Stopped, asked_to_stop

if TYPE_CHECKING:
    import torch

_world = (0, 1)  # rank and number of processes, set by join()
_apart = False  # whether this process has begun with work of its own, set by part()
_joined = False  # whether this process has ever joined others, set by join()


class Lost(RuntimeError):
    """Another process of the run is gone."""


def rank() -> int:
    """Number of this process, counted from 0."""
    return _world[0]


def world_size() -> int:
    """How many processes the run has."""
    return _world[1]


def is_first() -> bool:
    """Whether this is the process that writes files."""
    return _world[0] == 0


def torchrun_world() -> tuple[int, int]:
    """Rank and number of processes by torchrun's environment variables; (0, 1) without them."""
    values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    if "MASTER_ADDR" not in os.environ or not all(v.isdecimal() for v in values):
        return 0, 1
    return tuple(map(int, values))


def join() -> None:
    """Join the processes that torchrun has started. They talk by gloo, and on CUDA also by nccl."""
    global _joined, _world
    if torchrun_world()[1] == 1 or _world[1] > 1:
        return
    import torch
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with lost_if_gone():
        torch.distributed.init_process_group(backend, timeout=timedelta(hours=12))
    _joined, _world = True, (torch.distributed.get_rank(), torch.distributed.get_world_size())


def part() -> None:
    """Say that from now on this process can meet errors that the others do not meet."""
    global _apart
    _apart = True


def speaks() -> bool:
    """Whether this process prints its errors.

    Until part() all processes of a machine meet the same errors, and its first one prints them.
    """
    return _apart or os.environ.get("LOCAL_RANK", "0") == "0" or torchrun_world()[0] == 0


def leave() -> None:
    """Leave the other processes. This process then acts as a run of its own."""
    global _apart, _world
    _apart = False
    if _world[1] > 1:
        import torch
        torch.distributed.destroy_process_group()
    _world = (0, 1)


def end(status: int) -> int:
    """End this process with the exit status if it has ever joined others, else return the status.

    A thread of gloo may free the tensor of the last message while Python shuts down, and before
    Python 3.14 that aborts the process. So this function flushes what was printed, and exits without
    shutting Python down.
    """
    if _joined:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


@contextmanager
def lost_if_gone() -> Iterator[None]:
    """Raise Lost where a communication in the block fails because another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("gloo|nccl|connection|peer|socket", str(error), re.IGNORECASE):
            raise
        reason = str(error).splitlines()[0][:200]
        raise Lost(f"process {torchrun_world()[0]} has lost another one ({reason})") from error


def distributed_model(model: "torch.nn.Module", device: "torch.device") -> "torch.nn.Module":
    """Wrap a model so that its gradients are means over all processes.

    A process that is alone gets the model itself.
    """
    if _world[1] == 1:
        return model
    import torch
    with lost_if_gone():
        return torch.nn.parallel.DistributedDataParallel(
            model, device_ids=[device.index] if device.type == "cuda" else None)


def all_gather(value: Any) -> list:
    """List of the values that all processes pass, in the order of their ranks.

    value: a tensor, a plain Python value, or a list, tuple or dict of them.
    """
    if _world[1] == 1:
        return [value]
    import torch
    file = io.BytesIO()
    torch.save(value, file)
    own = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    with lost_if_gone():
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(_world[1])]
        torch.distributed.all_gather(sizes, torch.tensor([len(own)]))
        longest = int(max(sizes))
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        torch.distributed.all_gather(parts, torch.nn.functional.pad(own, (0, longest - len(own))))
    return [torch.load(io.BytesIO(p[:int(n)].numpy().tobytes()), weights_only=True)
            for p, n in zip(parts, sizes, strict=True)]


def gather_in_turn(mine: list) -> list:
    """Put the lists of all processes together into one.

    Item i of the result comes from process i % world_size(). mine: the list of this process.
    """
    parts = all_gather(mine)
    return [parts[i % len(parts)][i // len(parts)] for i in range(sum(map(len, parts)))]


def all_reduce_or_stop(n: int) -> int:
    """Sum of the whole numbers n of all processes.

    Raises Stopped in all of them if a signal has asked any of them to stop.
    """
    if _world[1] == 1:
        stop_if_asked()
        return n
    import torch
    both = torch.tensor([n, asked_to_stop()])
    with lost_if_gone():
        torch.distributed.all_reduce(both[:1])
        torch.distributed.all_reduce(both[1:], torch.distributed.ReduceOp.MAX)
    if both[1]:
        raise Stopped(int(both[1]))
    return int(both[0])


def stoppable(items: Iterable) -> Iterator:
    """Yield the same items, and raise Stopped before one of them as stop_if_asked does."""
    for item in items:
        stop_if_asked()
        yield item


def stop_if_asked() -> None:
    """Raise Stopped if this process runs alone and a signal has asked it to stop.

    Several processes must stop at the same step; they call all_reduce_or_stop instead.
    """
    if asked_to_stop() and _world[1] == 1:
        raise Stopped(asked_to_stop())


def broadcast_buffers(model: "torch.nn.Module") -> None:
    """Copy the buffers of the first process, BatchNorm's running statistics, to all others."""
    if _world[1] > 1:
        import torch
        with lost_if_gone():
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)


def barrier() -> None:
    """Wait until all processes have called this function."""
    all_gather(None)


def run_on_first(job: Callable, errors: tuple[type[Exception], ...]) -> Any:
    """Call job() in the first process only, and return its result in all of them.

    errors: exception types. Where job() raises one of them, the first process raises it on, and the
    other processes raise errors[0] with the same message.
    """
    result = failed = None
    if is_first():
        try:
            result = job()
        except errors as error:
            failed = error
    result, said = all_gather((result, str(failed) if failed else None))[0]
    if failed or said:
        raise failed or errors[0](said)
    return result
