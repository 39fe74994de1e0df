"""Weight averaging: the mean of several networks, and the BatchNorm statistics that belong to it.

    model.load_state_dict(average_states([torch.load(path) for path in best]))
    update_bn(model, batches)

[P] section V: Sydorskyi 2022. [SWA]: arXiv:1803.05407, Algorithm 1. See AUDIT.md.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn as nn


def average_states(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of several state dicts of one network, as a new state dict  ([P] section V, [SWA]).

    Every floating-point tensor is averaged in float64 and returned in its own dtype. BatchNorm's
    running means and variances are among them (DEV-7); update_bn can replace them afterwards.
    Tensors of whole numbers, such as BatchNorm's batch counters, are copied from the first state.
    Raises ValueError where there is no state or where the keys of the states differ.
    """
    if not states or any(s.keys() != states[0].keys() for s in states):
        raise ValueError("states to average must be one or more and have the same keys")
    return {k: torch.stack([s[k].double() for s in states]).mean(dim=0).to(v.dtype)
            if v.is_floating_point() else v.clone() for k, v in states[0].items()}


@torch.no_grad()
def update_bn(model: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Estimate BatchNorm's running statistics anew from one pass over data  ([SWA], DEV-7).

    `batches` yields inputs of the network, (B, 3, H, W). The model runs in training mode, so that
    dropout is on as well. A batch of b images after n others gets the weight b / (n + b), so that
    the result is the mean over all images, however they are cut into batches. The statistics that
    the model had before are forgotten. The mode of each submodule and BatchNorm's momentum are put
    back, also after an error. No gradient is computed and no weight changes.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta, modes, n = [m.momentum for m in norms], [m.training for m in model.modules()], 0
    for m in norms:
        m.reset_running_stats()
    try:
        model.train()
        for x in batches:
            n += len(x)
            for m in norms:
                m.momentum = len(x) / n
            model(x)
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for m, mode in zip(model.modules(), modes, strict=True):
            m.training = mode
