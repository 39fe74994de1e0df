"""The networks of a run as one callable, for use in other programs.

    predict = cam2seg.load("runs/seg")
    found = predict("photo.jpg")         # also a Pillow image, an array, or a list of them
    found.masks                          # bool (C, H, W) at the image's own size
    found.classes                        # C class names
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .. import cam, masks, models
from ..data.errors import DataError
from ..data.files import contents
from ..data.images import as_rgb, open_rgb
from ..runs import restore
from ..runs.checkpoints import load_checkpoint
from ..runs.exits import blaming
from ..runs.folder import fold_files
from . import classifiers, segmenters
from .batches import to_input
from .devices import pick_device
from .held_out_maps import Classifiers, MapOptions, maps_of_batch

Picture = str | os.PathLike | Image.Image | np.ndarray
KINDS = {"swa.pt": "classifier", "best.pt": "unet"}  # checkpoint name: kind, in this order


class Prediction(NamedTuple):
    """What the networks of a run say of one image."""

    masks: np.ndarray  # bool (C, H, W) at the image's own size
    probabilities: np.ndarray  # float32: of each pixel (C, H, W), or of each class (C,)
    classes: list  # C class names


class Predictor:
    """The networks of all trained folds of a run: a callable from images to Predictions.

    classes: C class names; size: (H, W) of the networks' input; kind: "classifier", or "unet" for a
    run of train_seg.py, also for one of SegNet.
    The result is the mean over the folds, as for an image that no fold has seen (DEV-19). `fold`
    asks for the network of one fold, which has not seen the images of that fold in folds.csv.
    Calls from several threads are safe: those that make maps wait for each other, because a map
    hooks into the network.
    """

    def __init__(self, nets: dict, checkpoint: dict, device: torch.device):
        """nets: {fold: network} in eval mode; checkpoint: the dict of one of their files."""
        self.nets, self.device, self.kind = nets, device, checkpoint["kind"]
        self.preprocess, self.flags = checkpoint["preprocess"], checkpoint.get("args", {})
        self.exclusive = checkpoint["model_args"].get("target") == "multiclass"
        self.method = "seam" if "scale" in checkpoint["model_args"] else "gradcam++"
        self.classes: list = self.preprocess["classes"]
        self.size: tuple = tuple(self.preprocess["size"])
        self._lock = threading.Lock()

    def __call__(self, images: Picture | Sequence[Picture], threshold: float | None = None,
                 confidence: float = 0.5, min_seg_len: int = 0,
                 fold: int | None = None) -> "Prediction | list[Prediction]":
        """Mask images: one Prediction, or a list of them for a list of images.

        images: path, Pillow image, or array uint8 (H, W) or (H, W, 3). threshold: least value of a
        pixel, by default the run's --threshold, or 0.3 for the maps of a classifier ([P] Table 2).
        confidence: least probability of a class; only a classifier has one for each class.
        min_seg_len: least area of a mask in pixels. A run of --target multiclass gives each pixel
        to its most probable class, without a threshold. Raises cam2seg.Error for a bad image or
        fold.
        """
        if not isinstance(images, (list, tuple)):
            return self([images], threshold, confidence, min_seg_len, fold)[0]
        least = threshold
        if least is None:
            least = 0.3 if self.kind == "classifier" else self.flags.get("threshold", 0.2)
        found = []
        for image in map(_as_pixels, images):
            heat, probs = self._pixel_probabilities(image, fold) if self.kind == "unet" \
                else self._maps(image, MapOptions(self.method), fold)
            drawn = masks.exclusive(heat, min_seg_len) if self.exclusive else np.stack(
                [masks.binarize(h, least, min_seg_len) for h in heat])
            if self.kind == "classifier":
                drawn &= (probs >= confidence)[:, None, None]
            found.append(Prediction(drawn, probs, self.classes))
        return found

    def maps(self, images: Picture | Sequence[Picture], method: str | None = None,
             target_layer: str | None = None, aug_smooth: bool = True,
             fold: int | None = None) -> "np.ndarray | list[np.ndarray]":
        """Activation maps float32 (C, H, W) in [0, 1] of each image, at its own size.

        The parameters mean what the flags of make_masks.py mean, and so do their defaults: a run of
        train_cls.py --seam has maps of its own, [S-4]. Raises cam2seg.Error, also where
        the run holds no classifier.
        """
        if self.kind != "classifier":
            raise DataError(f"a run of kind {self.kind} has no activation maps: load one of "
                            "train_cls.py")
        options = MapOptions(method or self.method, target_layer, aug_smooth)
        if not isinstance(images, (list, tuple)):
            return self._maps(_as_pixels(images), options, fold)[0]
        return [self._maps(image, options, fold)[0] for image in map(_as_pixels, images)]

    def _members(self, fold):
        """The networks of all folds, or that of one. Raises DataError for a fold without one."""
        if fold is None:
            return list(self.nets.values())
        if fold not in self.nets:
            raise DataError(f"fold {fold}: expected one of {', '.join(map(str, self.nets))}")
        return [self.nets[fold]]

    def _batch(self, image):
        """Pixels uint8 (1, H, W, 3) at the size of the networks' input."""
        resized = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized))[None]

    def _maps(self, image, options, fold):
        """Maps float32 (C, H, W) in [0, 1] and probabilities (C,) of one image."""
        classifiers = Classifiers(self.nets, self.preprocess, self.device)
        with self._lock, blaming("maps"):
            maps, probs = maps_of_batch(options, self._members(fold), self._batch(image),
                                        classifiers)
        full = cam.numpy_maps(maps[0].numpy(), image.size[::-1])
        return full, probs[0].numpy()

    def _pixel_probabilities(self, image, fold):
        """Mean probability (C, H, W) of each pixel, twice, so that the pair is like that of _maps.

        The first is the map to binarise, and the second is the result.
        """
        x = to_input(self._batch(image), self.device, self.preprocess["mean"],
                     self.preprocess["std"])
        with torch.no_grad():
            p = models.MeanProbability(self._members(fold), self.exclusive)(x)
            full = F.interpolate(p, size=image.size[::-1], mode="bilinear")[0].cpu().numpy()
        return full, full


def load(run: str | os.PathLike, device: str = "auto",
         checkpoint: str | None = None) -> Predictor:
    """Predictor of a folder that train_cls.py or train_seg.py has written.

    device: "auto", "cpu", "cuda" or "cuda:1". checkpoint: file name in the folders of the folds;
    by default swa.pt (a classifier), or else best.pt. Raises CheckpointError for a damaged file,
    and DataError where the folder is not a run.
    """
    run = Path(run)
    names = [checkpoint] if checkpoint else list(KINDS)
    name = next((n for n in names if fold_files(run, n)), None)
    if name is None:
        raise DataError(f"{run}: no fold*/{' or fold*/'.join(names)} in it, expected a run of "
                        f"train_cls.py or train_seg.py; {contents(run)}")
    with blaming("device"):
        chosen = pick_device(device)
    kind = load_checkpoint(next(iter(fold_files(run, name).values()))).get("kind")
    build = classifiers.build if kind == "classifier" else segmenters.build
    nets, state = restore.networks(run, name, build, kind if kind in KINDS.values() else "unet")
    nets = {k: net.to(chosen, memory_format=torch.channels_last).eval() for k, net in nets.items()}
    return Predictor(nets, state, chosen)


def _as_pixels(image):
    """A Pillow image of mode RGB from a path, a Pillow image or an array. Raises DataError."""
    if isinstance(image, (str, os.PathLike)):
        return open_rgb(image)
    if isinstance(image, Image.Image):
        return as_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise DataError(f"an array of {array.dtype} {array.shape}: expected uint8 (H, W) or "
                        "(H, W, 3)")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
