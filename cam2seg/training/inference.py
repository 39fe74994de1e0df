"""Networks that only infer: the same function with less work.

A BatchNorm in eval mode is a linear map of each channel, so that it becomes part of the convolution
before it. The network as it was trained stays the one of models.py.
"""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def prepared(network: nn.Module, device: torch.device,
             kept_layer: str | None = None) -> nn.Module:
    """Put a network in eval mode and channels_last memory on the device, fold its BatchNorms into
    the convolutions before them, and return it.

    The network is changed: it cannot be trained afterwards. A folded BatchNorm becomes an Identity
    of the same name, so that its output stays the layer's output. kept_layer: the name of a
    convolution whose own output is needed, as for maps of that layer; it keeps its BatchNorm.
    """
    network.eval()
    kept = dict(network.named_modules()).get(kept_layer) if kept_layer else None
    for block in [m for m in network.modules() if isinstance(m, nn.Sequential)]:
        names = list(block._modules)
        for first, second in zip(names, names[1:], strict=False):
            conv, norm = block._modules[first], block._modules[second]
            if (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                    and conv is not kept):
                block._modules[first] = fuse_conv_bn_eval(conv, norm)
                block._modules[second] = nn.Identity().eval()
    return network.to(device, memory_format=torch.channels_last)
