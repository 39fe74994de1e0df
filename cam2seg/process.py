"""One process among others: its rank, what all of them share, when it is asked to stop, and files
that are whole or not there.

torchrun starts a script once for each process; after start() they act as one. Without torchrun
there is one process and nothing here communicates. Only the first process writes files.
"""

import io
import os
import re
import signal
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

_world = (0, 1)  # rank and number of processes, set by start()
_asked = []  # the signal that asked to stop


class Stopped(Exception):
    """A signal asked the run to stop; `signum` is its number."""

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Lost(RuntimeError):
    """Another process of the run is gone."""


def rank():
    return _world[0]


def count():
    return _world[1]


def first():
    return _world[0] == 0


def given():
    """Rank and number of processes by torchrun's environment; (0, 1) without it."""
    values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    if "MASTER_ADDR" not in os.environ or not all(v.isdecimal() for v in values):
        return 0, 1
    return tuple(map(int, values))


def start():
    """Join the processes that torchrun has started: gloo on the CPU, nccl beside it on CUDA."""
    global _world
    if given()[1] == 1 or _world[1] > 1:
        return
    import torch
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with together():
        torch.distributed.init_process_group(backend, timeout=timedelta(hours=12))
    _world = torch.distributed.get_rank(), torch.distributed.get_world_size()


def end():
    """Leave the others."""
    global _world
    if _world[1] > 1:
        import torch
        torch.distributed.destroy_process_group()
    _world = (0, 1)


@contextmanager
def together():
    """Raise Lost where what is done here with other processes fails because one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("gloo|nccl|connection|peer|socket", str(error), re.IGNORECASE):
            raise
        reason = str(error).splitlines()[0][:200]
        raise Lost(f"process {given()[0]} has lost another one ({reason})") from error


def wrapped(model, device):
    """The model whose gradients are means over all processes."""
    if _world[1] == 1:
        return model
    import torch
    with together():
        return torch.nn.parallel.DistributedDataParallel(
            model, device_ids=[device.index] if device.type == "cuda" else None)


def share(value):
    """[value of each process], in the order of the ranks; tensors and plain values only."""
    if _world[1] == 1:
        return [value]
    import torch
    file = io.BytesIO()
    torch.save(value, file)
    own = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    with together():
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(_world[1])]
        torch.distributed.all_gather(sizes, torch.tensor([len(own)]))
        longest = int(max(sizes))
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        torch.distributed.all_gather(parts, torch.nn.functional.pad(own, (0, longest - len(own))))
    return [torch.load(io.BytesIO(p[:int(n)].numpy().tobytes()), weights_only=True)
            for p, n in zip(parts, sizes, strict=True)]


def in_turn(mine):
    """Items 0, 1, 2 ... of which process r holds r, r + count, r + 2 count ... in its list."""
    shares = share(mine)
    return [shares[i % len(shares)][i // len(shares)] for i in range(sum(map(len, shares)))]


def agree(n):
    """Sum of n over all processes; raises Stopped in all of them if one has been asked to stop."""
    if _world[1] == 1:
        check()
        return n
    import torch
    both = torch.tensor([n, _asked[0] if _asked else 0])
    with together():
        torch.distributed.all_reduce(both[:1])
        torch.distributed.all_reduce(both[1:], torch.distributed.ReduceOp.MAX)
    if both[1]:
        raise Stopped(int(both[1]))
    return int(both[0])


def same(model):
    """Give every process the buffers (BatchNorm's running statistics) of the first."""
    if _world[1] > 1:
        import torch
        with together():
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)


def barrier():
    share(None)


def first_does(job, kinds):
    """Run job() in the first process; an error of these kinds in it is one of the first kind in
    the others."""
    failed = None
    if first():
        try:
            job()
        except kinds as error:
            failed = error
    said = share(str(failed) if failed else None)[0]
    if failed or said:
        raise failed or kinds[0](said)


@contextmanager
def stopping():
    """SIGINT and SIGTERM let the step in hand end, then raise Stopped; a second one, a second later
    or more, ends at once: launchers hand on what the whole group has already been sent."""
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


def check():
    """Raise Stopped if this process runs alone and was asked to stop; several agree() instead."""
    if _asked and _world[1] == 1:
        raise Stopped(_asked[0])


@contextmanager
def whole_file(path, mode="w", **how):
    """A file to write into that takes its name at the end, and leaves nothing on an error."""
    tmp = Path(f"{path}.tmp")
    try:
        tmp.unlink(missing_ok=True)  # a link would lead elsewhere
        with open(tmp, mode.replace("w", "x"), **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
