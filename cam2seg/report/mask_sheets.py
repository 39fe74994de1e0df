"""The contact sheets of evaluate.py: images from best to worst for each class, and images with all
classes in their colours.

`content` is a panels.Content. between(items) yields the same items and may stop a run in between.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import masks, metrics
from ..data import images
from . import pictures
from .panels import Content


def write_best_to_worst(out: Path, content: Content, counts: Sequence[np.ndarray], c: int,
                        lines: int, between: Callable) -> None:
    """Write class_{c + 1}.png: `lines` images spread evenly from best to worst of the first masks.

    counts: those of metrics.mask_counts for the first masks, three times int (N, C). Without a true
    mask of the class nothing is written.
    """
    first, class_name = next(iter(content.sets)), content.classes[c]
    inter, truth, pred = (n[:, c] for n in counts)
    present = np.flatnonzero(truth)
    if not len(present):
        return
    score = 2 * inter[present] / (truth[present] + pred[present])
    ranked = present[np.argsort(-score, kind="stable")]
    columns = ["truth, all classes", "truth"]
    for title in content.sets:
        columns += [f"map of {title}"] * (content.maps.get(title) is not None) + [title]
    rows = []
    for at in between(_evenly(len(ranked), lines)):
        i = ranked[at]
        dice = metrics.mask_scores(*(n[i:i + 1, None] for n in (inter, truth, pred)))
        rows.append((f"{content.names[i]}  Dice {dice['dice_present'][1]:.3f}  rank {at + 1} of "
                     f"{len(ranked)}", _pictures(content, content.names[i], c)))
    path = out / f"class_{c + 1}.png"
    pictures.contact_sheet(path, f"class {class_name}: best to worst of {first}", columns, rows)


def write_class_colours(out: Path, content: Content, lines: int, between: Callable) -> None:
    """Write classes.png: `lines` images spread evenly over the set, with the masks of all classes
    in their colours, true ones where they are known, and those of each set."""
    names, classes = content.names, content.classes
    sets = [("truth", content.truth)] * bool(content.truth) + [*content.sets.items()]
    rows = []
    for i in between(_evenly(len(names), lines)):
        size = content.sizes[names[i]]
        image = images.open_at(content.image_dir / names[i], size)
        drawn = [masks.decode_all(rles, names[i], size, len(classes)) for _, rles in sets]
        rows.append((names[i], [image, *(pictures.paint(image, mask) for mask in drawn)]))
    colours = ", ".join(f"{name} {pictures.COLOUR_NAMES[c % len(pictures.COLOUR_NAMES)]}"
                        for c, name in enumerate(classes))
    pictures.contact_sheet(out / "classes.png", colours,
                           ["image", *(title for title, _ in sets)], rows)


def _evenly(count, lines):
    """Up to `lines` different indices below `count`, the first and the last one among them."""
    return np.unique(np.linspace(0, count - 1, lines).round().astype(int))


def _pictures(content, name, c):
    """The pictures of one line of a contact sheet: truth, and map and mask of each set."""
    size = content.sizes[name]
    true = masks.decode_all(content.truth, name, size, len(content.classes))
    row = [pictures.paint(images.open_at(content.image_dir / name, size), true),
           pictures.black_white(true[c])]
    for title, rles in content.sets.items():
        if content.maps.get(title) is not None:
            row.append(pictures.heat(content.maps[title](name, c, size)))
        row.append(pictures.black_white(masks.rle_decode(rles.get((name, c), ""), size)))
    return row
