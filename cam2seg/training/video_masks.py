"""Masks of all frames of videos from those of their first frames (make_masks.py --method video).

The features are trained on the frames themselves. The functions get frames, and masks of first
frames, and nothing else, so that no other mask drawn by a person can reach them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..methods.boundaries import sequence_scores
from ..data.errors import DataError
from ..data.images import open_rgb
from ..data.labels import Labels
from ..masks import decode_all, rle_encode
from ..methods import video
from ..runs.checkpoints import load_training_state, save_checkpoint
from ..runs.progress import Progress, silent
from ..runs.signals import Stopped

LONGEST = 256  # pixels along the longer side of a frame as the network sees it, DEV-51
BATCH, CROP, GAP, RATE = 4, 64, 3, 1e-3  # pairs, pixels, frames, Adam's rate, DEV-52
LEAST_COLOUR = 0.02  # two units of Lab's a or b in some pixel, DEV-60
SAVE = 50  # steps between two files of the state
FILE = "features.pt"
KIND = "video features"


class Video(NamedTuple):
    """One sequence of frames, and what is given of it."""

    names: list  # T names of frames, in their order
    size: tuple  # (H, W) of each
    first: np.ndarray  # masks of the first frame, bool (C, H, W)


def sequences(names: Sequence[str]) -> list[list[str]]:
    """The names of frames in their order, one list for each folder.

    Numbers in names count as numbers, so that frame10 stands behind frame9.    DEV-56
    """
    def parts(name):
        return [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", name)]

    def folder(name):
        return name.rpartition("/")[0]

    ordered = sorted(names, key=lambda name: (parts(folder(name)), parts(name), name))
    return [list(group) for _, group in groupby(ordered, folder)]


def check(path: Path, given: Labels, names: Sequence[str],
          sizes: Mapping[str, tuple[int, int]]) -> list[Video]:
    """The sequences, with the masks that the file at `path` gives for their first frames.

    given: what that file says; sizes: {name: (H, W)}. Raises DataError for a mask of another frame,
    for a sequence without a mask, for frames of two sizes, and where no sequence has two frames.
    """
    found = sequences(names)
    first = {name: group[0] for group in found for name in group}
    for (name, _), row in given.rows.items():
        if first[name] != name:
            raise DataError(f"{path}, row {row}: '{name}' is not the first frame of its folder, "
                            f"expected masks of '{first[name]}' alone")
    videos = []
    for group in found:
        masks = decode_all(given.rles, group[0], sizes[group[0]], len(given.classes))
        if not masks.any():
            raise DataError(f"{path}: no mask of '{group[0]}', expected one for the first frame of "
                            "each folder")
        for name in group:
            if sizes[name] != masks.shape[1:]:
                raise DataError("'{}' has {} x {} pixels, expected {} x {} as in '{}'".format(
                    name, *sizes[name], *masks.shape[1:], group[0]))
        videos.append(Video(group, masks.shape[1:], masks))
    if max(len(v.names) for v in videos) < 2:
        raise DataError(f"{path}: no folder has two frames or more, expected a video")
    return videos


def folds(videos: Sequence[Video], names: Sequence[str]) -> np.ndarray:
    """Fold int (N,) of the named frames: whole sequences in turn, or fifths of a single one, so
    that frames which look alike share a fold.    DEV-57"""
    count = min(5, len(videos) if len(videos) > 1 else len(videos[0].names))
    of = {name: i % count if len(videos) > 1 else count * t // len(v.names)
          for i, v in enumerate(videos) for t, name in enumerate(v.names)}
    return np.array([of[name] for name in names])


def working_size(size: tuple[int, int], wanted: Sequence[int] | None = None) -> tuple[int, int]:
    """(H, W) of a frame as the network sees it, in whole cells: `wanted`, or its own size with at
    most LONGEST pixels along the longer side (DEV-51)."""
    sides = wanted or [side * min(1, LONGEST / max(size)) for side in size]
    return tuple(video.CELL * max(1, round(side / video.CELL)) for side in sides)


def read_frame(path: Path, size: tuple[int, int]) -> Tensor:
    """The frame at `path` in Lab [V-1], resized to size (H, W): float32 (3, H, W)."""
    image = open_rgb(path)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX if image.size[0] > size[1]
                             else Image.Resampling.BILINEAR)
    return video.lab(torch.from_numpy(np.array(image)))


def draw_pair(rng: np.random.Generator, videos: Sequence[Video]) -> tuple[Video, int, int]:
    """A random sequence of two frames or more, and the numbers of a query and a reference in it,
    which are at most GAP frames apart."""
    long = [v for v in videos if len(v.names) > 1]
    chosen = long[rng.integers(len(long))]
    apart = rng.integers(1, min(GAP, len(chosen.names) - 1) + 1)
    at = int(rng.integers(len(chosen.names) - apart))
    pair = (at, at + int(apart))
    return chosen, *(pair if rng.random() < 0.5 else pair[::-1])


def crop_pair(rng: np.random.Generator, pair: Sequence[Tensor]) -> list[Tensor]:
    """The same random square of CROP pixels of two frames (3, H, W). A shorter side is filled up
    with copies of the last row or column."""
    H, W = pair[0].shape[1:]
    y, x = (int(rng.integers(max(0, side - CROP) + 1)) for side in (H, W))
    short = (0, max(0, CROP - W), 0, max(0, CROP - H))
    return [torch.nn.functional.pad(frame[:, y:y + CROP, x:x + CROP], short, mode="replicate")
            for frame in pair]


def train(videos: Sequence[Video], read: Callable[[Video, int], Tensor], steps: int, out: Path,
          device: torch.device, report: Callable = silent) -> torch.nn.Module:
    """The network trained on pairs of frames for `steps` steps, or for what is left of them.  [V-4]

    read(video, t) gives frame t in Lab. DEV-52 has the settings, and by DEV-58 these are the frames
    that shall be masked. The state is kept in out/features.pt, with which a stopped run goes on.
    What a step draws depends on its number alone. Frames without colour leave the network as it is
    (DEV-60). Raises CheckpointError for a file that does not fit, and Stopped.
    """
    net = video.network().to(device)
    if not any(read(v, 0)[1:].abs().max() > LEAST_COLOUR for v in videos):
        report("warning", text="the frames are grey, and without colour no features can be learned: "
               "the masks come from a network that is not trained (DEV-60)")
        return net
    adam = torch.optim.Adam(net.parameters(), lr=RATE)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, steps))
    done = 0
    if (out / FILE).exists():
        _, done, _ = load_training_state(out / FILE, KIND, net, adam, rates)
    clock = Progress(steps, "video: features", report, "steps", done)
    while done < steps:
        rng, pairs = np.random.default_rng((0, done)), []
        for _ in range(BATCH):
            chosen, q, r = draw_pair(rng, videos)
            pairs.append(crop_pair(rng, [read(chosen, q), read(chosen, r)]))
        query, reference = (torch.stack(frames).to(device) for frames in zip(*pairs))
        adam.zero_grad()
        loss = video.reconstruction_loss(net, query, reference, int(rng.integers(1, 3)))
        loss.backward()
        adam.step()
        rates.step()
        done += 1
        try:
            clock.add(1, loss.detach())
        except Stopped:
            _save(out, net, adam, rates, done)
            raise
        if done % SAVE == 0 or done == steps:
            _save(out, net, adam, rates, done)
    return net


def _save(out, net, adam, rates, done):
    save_checkpoint(out / FILE, net, {"kind": KIND, "optimizer": adam.state_dict(),
                                      "scheduler": rates.state_dict(), "best": [],
                                      "epochs_done": done})


@torch.no_grad()
def make_masks(net: torch.nn.Module, videos: Sequence[Video], read: Callable[[Video, int], Tensor],
               reach: tuple, report: Callable = silent) -> tuple[dict, dict]:
    """The run lengths of the masks, and of the ignored pixels, of all frames.

    reach: radius and memory of video.propagate, and the temperature where it is another.
    Both results are {(name, class index): run lengths}. A class without a mask in the first frame
    of a sequence has none in its other frames. The first frame keeps the masks that are given.
    """
    made, ignored = {}, {}
    clock = Progress(sum(len(v.names) for v in videos), "masks", report, "frames")
    for v in videos:
        given = np.flatnonzero(v.first.any(axis=(1, 2)))
        for t, labels in enumerate(_labels(net, v, given, read, reach)):
            masks, doubt = video.masks_of(labels, v.size)
            if t == 0:
                masks, doubt = v.first[given], np.zeros_like(doubt)
            for c, mask, unsure in zip(given.tolist(), masks, doubt, strict=True):
                made[v.names[t], c] = rle_encode(mask)
                if unsure.any():
                    ignored[v.names[t], c] = rle_encode(unsure)
            clock.add(1)
    return made, ignored


def _labels(net, v, given, read, reach):
    """Yield the labels M (c, h, w) of the given classes in each frame of a sequence.    [V-5]"""
    device = next(net.parameters()).device
    features = (video.describe(net, read(v, t)[None].to(device))[0] for t in range(len(v.names)))
    ahead = next(features)
    first = torch.from_numpy(v.first[given]).to(device, torch.float32)
    first = torch.nn.functional.adaptive_avg_pool2d(first, ahead.shape[1:])
    return video.propagate(chain([ahead], features), first, *reach)


def scores(videos: Sequence[Video], truth: Labels, made: Mapping[tuple[str, int], str]) -> dict:
    """{folder: [J, F]} [V-9] of the run lengths `made` against true masks of the same classes, and
    the means over folders under "mean"."""
    found = {}
    for v in videos:
        if len(v.names) > 1:
            pair = [np.stack([decode_all(rles, name, v.size, len(truth.classes))
                              for name in v.names]) for rles in (truth.rles, made)]
            found[v.names[0].rpartition("/")[0] or "."] = list(sequence_scores(*pair))
    return {**found, "mean": np.mean(list(found.values()), axis=0).tolist()}
