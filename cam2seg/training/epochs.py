"""One pass over the images of a fold: training, prediction, and the mean loss of a prediction.

Models and losses come in as arguments. Batches are (pixels uint8 (B, H, W, 3), target), as
batches.Batches gives them. A network may return a tensor or a tuple of tensors; the loss gets what
the network returns.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..runs import processes
from ..runs.progress import Progress, silent
from .batches import Batches

if TYPE_CHECKING:
    from .fit import Settings


def as_float32(outputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """A network's output as float32, whether it is a tensor or a tuple of tensors."""
    return tuple(o.float() for o in outputs) if isinstance(outputs, tuple) else outputs.float()


def train_one_epoch(net: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer,
                    settings: "Settings", epoch: int,
                    steps: list | None = None) -> tuple[float, float]:
    """Train for one pass over the batches, in training mode.

    net: the model, or its distributed wrapper. settings: fit.Settings. epoch: counted from 0.
    steps: list of (loss, number of images) of the steps that a stopped run has already taken in
    this epoch. Their images are skipped, and the new steps are appended to the list.
    Where there are several processes, each takes its part of a batch, and its gradient is weighted
    by the size of that part.

    Returns the mean loss over images, and the seconds spent in waiting for data. Raises
    FloatingPointError, naming the step, at the first loss that is not finite, and signals.Stopped
    after the step in which a signal came.
    """
    net.train()
    steps = [] if steps is None else steps
    device = next(net.parameters()).device
    skip = round(sum(processes.all_gather(sum(n for _, n in steps))))
    what = f"{settings.title}epoch {epoch + 1}/{settings.epochs}"
    clock = Progress(len(batches), what, settings.report, done=skip)
    for pixels, target in clock.timed(batches(epoch, skip) if skip else batches(epoch)):
        images = processes.all_reduce_or_stop(len(pixels))
        with processes.lost_if_gone():
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
                outputs = net(settings.prepare(pixels))
            loss = settings.loss(as_float32(outputs), target.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            (loss * (len(pixels) * processes.world_size() / images)).backward()
        optimizer.step()
        # Reading the loss here would make the CPU wait for the device in every step.
        steps.append((loss.detach(), len(pixels)))
        clock.add(images, steps[-1][0])
    return _mean_of_steps(steps), clock.waited


def _mean_of_steps(steps):
    """Mean loss over the images of all processes. Raises FloatingPointError, naming the step."""
    losses = torch.stack([loss for loss, _ in steps]).double().cpu()
    sizes = torch.tensor([n for _, n in steps], dtype=torch.float64)
    bad = (~losses.isfinite()).nonzero()
    wrong = f"loss is {losses[bad[0]].item()} at step {int(bad[0])}" if len(bad) else ""
    parts = processes.all_gather([float((losses * sizes).sum()), float(sizes.sum()), wrong])
    for *_, wrong in parts:
        if wrong:
            raise FloatingPointError(wrong)
    return sum(p[0] for p in parts) / sum(p[1] for p in parts)


@torch.no_grad()
def predict(model: nn.Module, batches: Batches, prepare: Callable, amp: bool = False,
            what: str = "predict",
            report: Callable = silent) -> Iterator[tuple[Tensor | tuple[Tensor, ...], Tensor]]:
    """Yield (outputs float32, target) for all batches in order, in eval mode.

    prepare: turns pixels uint8 (B, H, W, 3) into the network's input. Raises signals.Stopped.
    """
    model.eval()
    device = next(model.parameters()).device
    clock = Progress(len(batches), what, report)
    for pixels, target in batches(None):
        processes.all_reduce_or_stop(0)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            outputs = as_float32(model(prepare(pixels)))
        clock.add(len(pixels))
        yield outputs, target
    # Every process must take part in as many reductions as the one with the most batches.
    for _ in range(batches.missing_batches() if processes.world_size() > 1 else 0):
        processes.all_reduce_or_stop(0)


def mean_loss(predictions: Iterable[tuple], loss: Callable) -> float:
    """Mean of a loss over the images of all processes, from their (outputs, target) batches."""
    total, count = 0.0, 0
    for value, n in processes.gather_in_turn([_loss_of_batch(outputs, target, loss)
                                              for outputs, target in predictions]):
        total += value * n
        count += n
    return total / count


def _loss_of_batch(outputs, target, loss):
    device = (outputs[0] if isinstance(outputs, tuple) else outputs).device
    return loss(outputs, target.to(device)).item(), len(target)
