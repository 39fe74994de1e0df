"""SegNet: an encoder whose poolings remember where their largest values were, and a decoder that
puts values back to those places. It turns images (B, 3, H, W) into logits.

    model = SegNet(models.vgg16("imagenet"), num_classes=4)

Tag: [SN] Badrinarayanan, Kendall and Cipolla, SegNet, arXiv:1511.00561.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


class SegNet(nn.Module):
    """SegNet ([SN]), (B, 3, H, W) -> logits (B, num_classes, H, W). H and W may be of any size.

    `encoder` is a sequence of 3 x 3 convolutions, each with BatchNorm and ReLU, and of 2 x 2
    poolings, as models.vgg16 gives it. The decoder mirrors it: an unpooling for each pooling, and
    for each convolution one of the reverse numbers of channels. The mirror of the first one is the
    head, which has as many channels as there are classes. No features are handed across besides
    the places of the largest values. The softmax of [SN] is left to the loss and to the caller. The
    decoder is drawn after He et al., as in [SN].
    """

    def __init__(self, encoder: nn.Sequential, num_classes: int):
        super().__init__()
        layers = [m for m in encoder if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
        blocks = []
        for layer in reversed(layers[1:]):
            if isinstance(layer, nn.MaxPool2d):
                blocks.append([])
            else:
                blocks[-1] += conv_norm_relu(layer.out_channels, layer.in_channels)
        self.encoder = encoder
        self.decoder = nn.ModuleList(nn.Sequential(*block) for block in blocks)
        self.head = nn.Conv2d(layers[0].out_channels, num_classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                size = x.shape[-2:]
                x, places = pool(x)
                pooled.append((places, size))
            else:
                x = layer(x)
        for block in self.decoder:
            x = block(unpool(x, *pooled.pop()))
        return self.head(x)


def pool(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value of each window of 2 x 2, and its place.    [SN]

    x: (B, K, H, W); both results are (B, K, ceil(H / 2), ceil(W / 2)). A place is i W + j for row i
    and column j, and of equal values the first counts. The last window of an odd side is cut off,
    so that no row or column is left out (DEV-61).
    """
    return F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)


def unpool(x: torch.Tensor, places: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Each value of x (B, K, h, w) at its place in (B, K, H, W), and zeros elsewhere.    [SN]

    places: what `pool` returned; size: the (H, W) that it was given. Two sizes have the same half,
    so that the places alone would not tell which of them it was.
    """
    return F.max_unpool2d(x, places, 2, output_size=size)


def conv_norm_relu(in_ch: int, out_ch: int) -> list[nn.Module]:
    """A 3 x 3 convolution drawn after He et al. (arXiv:1502.01852), BatchNorm and ReLU."""
    conv = nn.Conv2d(in_ch, out_ch, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(conv.bias)
    return [conv, nn.BatchNorm2d(out_ch), nn.ReLU(inplace=True)]
