"""Panels in the manner of the paper's figures 2 to 5 and 8 to 13: image, truth, map and mask, as
pictures that are part of the page."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .. import masks, metrics
from ..data import images
from . import mask_report, pictures
from .page import Html, details, join, tag

SIDE, WIDE = 360, 640  # pixels of the longer side of a picture, and of one wider than WIDER
WIDER = 2.5  # widths in one height
MOST_CLASSES, MOST_SETS = 8, 6  # that have panels: a page of a few megabytes at most


class Content(NamedTuple):
    """What a report shows beside the files of the runs."""

    names: list  # N image names
    classes: list  # C class names
    sizes: dict  # {name: (H, W)}
    image_dir: Path
    truth: dict | None  # true run lengths {(name, class index): text}; None where none are known
    sets: dict  # {title: run lengths}
    maps: dict  # {title: function (name, class index, (H, W)) -> map (H, W), or None}
    labels: tuple | None = None  # the names and labels (M, C) of all labelled images
    ignored: Mapping = {}  # run lengths of the pixels in doubt

    def of_names(self) -> np.ndarray | None:
        """The labels (N, C) of the images shown; None where they are not known."""
        if self.labels is None:
            return None
        row = {name: y for name, y in zip(*self.labels, strict=True)}
        return np.array([row[name] for name in self.names])


class Panel(NamedTuple):
    """One image that is shown, with the masks of one class."""

    said: str  # why it is shown
    name: str
    c: int


def by_dice(content: Content) -> list[Panel]:
    """The best, the median and the worst image of each class by the Dice of the first masks, over
    the images with a true mask of it."""
    title, first = next(iter(content.sets.items()))
    both, true, made = metrics.mask_counts(content.names, content.truth, first, content.sizes,
                                           len(content.classes))
    found = []
    for c in range(min(len(content.classes), MOST_CLASSES)):
        present = np.flatnonzero(true[:, c])
        dice = 2 * both[present, c] / (true[present, c] + made[present, c])
        order = present[np.argsort(-dice, kind="stable")]
        last, words = len(order) - 1, {}
        for rank, word in ((0, "best"), (last, "worst"), (last // 2, "median")):
            words.setdefault(rank, word)
        found += [Panel(f"{words[rank]} of {len(order)} by the Dice of {title}",
                        content.names[order[rank]], c) for rank in sorted(words) if len(order)]
    return found


def by_doubt(content: Content) -> list[Panel]:
    """The two surest and the two least sure masks of each class, by mask_report.doubt."""
    first = next(iter(content.sets.values()))
    C = len(content.classes)
    areas, left_out = (mask_report.measure_areas(rles, content.names, C)
                       for rles in (first, content.ignored))
    doubt = mask_report.doubt(areas, content.of_names(), left_out)
    found = []
    for c in range(min(C, MOST_CLASSES)):
        order = [int(i) for i in np.argsort(doubt[:, c], kind="stable") if doubt[i, c] >= 0]
        for word, chosen in (("surest", order[:2]), ("least sure", order[2:][::-1][:2])):
            found += [Panel(f"{word} of {len(order)}: doubt {doubt[i, c]:.2f}", content.names[i], c)
                      for i in chosen]
    return found


def draw(content: Content, chosen: Sequence[Panel], over: Callable) -> Html:
    """The panels under one heading for each class. over(items, what) yields the items."""
    parts, shown = [], None
    for panel in over(chosen, "pictures of the report"):
        if panel.c != shown:
            shown = panel.c
            parts.append(tag("h3", f"Class {content.classes[shown]}"))
        parts.append(_panel(content, panel))
    return join(parts)


def _panel(content, panel):
    name, c, size = panel.name, panel.c, content.sizes[panel.name]
    of = f"{name}, class {content.classes[c]}"
    image = images.open_at(content.image_dir / name, size)
    shown = [_photo(image, f"The image {name}", "image")]
    true = None
    if content.truth is not None:
        all_true = masks.decode_all(content.truth, name, size, len(content.classes))
        true = all_true[c]
        shown += [_photo(pictures.paint(image, all_true), f"{name} with its true masks in the "
                         "colours of their classes", "truth, all classes"),
                  _drawing(true, f"True mask of {of}", "truth")]
    for title in list(content.sets)[:MOST_SETS]:
        map_of = content.maps.get(title)
        if map_of is not None:
            shown.append(_photo(pictures.heat(map_of(name, c, size)), f"Map of {title} for {of}",
                                f"map of {title}"))
        mask = masks.rle_decode(content.sets[title].get((name, c), ""), size)
        if true is None:
            painted = np.zeros((c + 1, *size), bool)
            painted[c] = mask
            shown.append(_photo(pictures.paint(image, painted), f"{name} with the mask of {title} "
                                "in colour", f"image and {title}"))
        said = title if true is None else f"{title}, Dice {metrics.dice(true, mask):.3f}"
        shown.append(_drawing(mask, f"Mask of {of}: {said}", said))
    if content.ignored:
        left_out = masks.rle_decode(content.ignored.get((name, c), ""), size)
        shown.append(_drawing(left_out, f"Pixels of {of} that are left out of training",
                              "left out of training"))
    wide = "panels wide" if size[1] > WIDER * size[0] else "panels"
    return join([tag("p", tag("b", name), f": {panel.said}", class_="note"),
                 tag("div", *shown, class_=wide)])


def _photo(pixels, alt, caption):
    return _figure(Image.fromarray(pixels), alt, caption, "JPEG")


def _drawing(mask, alt, caption):
    picture = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    return _figure(picture, alt, caption, "PNG")


def _figure(picture, alt, caption, form):
    W, H = picture.size
    scale = min(1.0, (WIDE if W > WIDER * H else SIDE) / max(W, H))
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    file = io.BytesIO()
    small = picture.resize(size, Image.Resampling.BOX)  # a thin mask becomes grey and stays
    small.save(file, form, **({"quality": 80} if form == "JPEG" else {"optimize": True}))
    data = base64.b64encode(file.getvalue()).decode()
    image = tag("img", src=f"data:image/{form.lower()};base64,{data}", alt=alt, width=size[0],
                height=size[1], decoding="async")
    return tag("figure", details(image), tag("figcaption", caption))  # a click makes it larger
