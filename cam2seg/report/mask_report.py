"""What a set of masks looks like where no truth is known, and which images to look at first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import images
from ..data.colours import COLOURS
from ..data.csv_files import write_csv
from ..masks import label_components, rle_decode
from ..metrics import mask_counts
from . import pictures
from .tables import print_table

QUANTILES = (0.1, 0.5, 0.9)
LEAST_AUC = 0.7
MISSING = 3.0  # the doubt of a labelled image without a mask
MOST_COLOURS = 20  # that a legend names


def measure_areas(rles: Mapping[tuple[str, int], str], names: Sequence[str],
                  classes: int) -> np.ndarray:
    """Areas of all masks in pixels, int (N, C), summed over their run lengths.

    rles: {(name, class index): run lengths}; classes: C.
    """
    return np.array([[sum(map(int, rles.get((name, c), "").split()[1::2]))
                      for c in range(classes)] for name in names], np.int64)


def count_components(rles: Mapping[tuple[str, int], str], names: Iterable[str],
                     sizes: Mapping[str, tuple[int, int]], classes: int) -> np.ndarray:
    """Number of 8-connected components of all masks: int (N, C). sizes: {name: (H, W)}."""
    return np.array([[label_components(rle_decode(rles[name, c], sizes[name]))[1]
                      if rles.get((name, c)) else 0 for c in range(classes)] for name in names],
                    np.int64)


def summarise(areas: np.ndarray, parts: np.ndarray, y: np.ndarray | None,
              pixels: np.ndarray) -> list[dict]:
    """Facts of each class for metrics.json: a list of C dicts.

    areas, parts: int (N, C), the pixels of each mask and the number of its components. y: labels
    (N, C) or None. pixels: int (N,), the pixels of each image. The quantiles are those of
    area / pixels over the masks that are not empty.
    """
    facts = []
    for c in range(areas.shape[1]):
        made = areas[:, c] > 0
        part = areas[made, c] / pixels[made]
        each = areas[made, c] / np.maximum(parts[made, c], 1)
        missing = None if y is None else int((y[:, c].astype(bool) & ~made).sum())
        facts.append({
            "made": int(made.sum()),
            "labelled": None if y is None else int(y[:, c].sum()),
            "labelled_without_mask": missing,
            "area_quantiles": np.quantile(part, QUANTILES).tolist() if made.any() else None,
            "components_per_mask": float(parts[made, c].mean()) if made.any() else None,
            "component_pixels": float(np.median(each)) if made.any() else None})
    return facts


def describe(work: Any, rles: Mapping[tuple[str, int], str],
             others: Mapping[str, Mapping[tuple[str, int], str]],
             cells: Sequence[float | None], over: Callable) -> list[dict]:
    """The facts of summarise() about the masks of a make_masks.py run: a list of C dicts.

    Each dict also holds "cell_pixels", how many pixels of the image are under one cell of the map
    that the masks of its class come from, or None where they come from no map; and "agreement",
    {path: mean Dice}, how far these masks agree with those of other files. work: names, sizes,
    classes and labels of the run; rles: its run lengths; others: {path: run lengths}; cells: C
    values of "cell_pixels". over(items, what) yields the items of a long loop.
    """
    C = len(work.classes)
    areas = measure_areas(rles, work.names, C)
    parts = count_components(rles, over(work.names, "counting components"), work.sizes, C)
    pixels = np.array([h * w for h, w in map(work.sizes.get, work.names)])
    found = summarise(areas, parts, work.labels.y if work.labels is not None else None, pixels)
    for fact, cell in zip(found, cells, strict=True):
        fact["cell_pixels"] = cell
    for path, other in others.items():
        dice = agreement(rles, other, work.names, work.sizes, C)
        for fact, value in zip(found, dice, strict=True):
            fact.setdefault("agreement", {})[path] = value
    return found


def agreement(rles: Mapping[tuple[str, int], str], others: Mapping[tuple[str, int], str],
              names: Sequence[str], sizes: Mapping[str, tuple[int, int]],
              classes: int) -> list[float | None]:
    """How far two sets of masks agree: the mean Dice of each class over the images in which either
    set has a mask of it, None where no image has one.

    rles, others: {(name, class index): run lengths}; sizes: {name: (H, W)}; classes: C.
    """
    both, ours, theirs = mask_counts(names, rles, others, sizes, classes)
    either = ours + theirs > 0
    dice = 2 * both / np.where(either, ours + theirs, 1)
    return [float(d[e].mean()) if e.any() else None for d, e in zip(dice.T, either.T, strict=True)]


def print_summary(title: str, classes: Sequence[str], facts: Sequence[dict]) -> None:
    """Print the facts of describe() as one table."""
    def column(of):
        return [of(f) for f in facts]

    rows = [["masks made", *column(lambda f: f["made"])],
            ["images with the label", *column(lambda f: f["labelled"])],
            ["... without a mask", *column(lambda f: f["labelled_without_mask"])]]
    for n, q in enumerate(QUANTILES):
        rows.append([f"area, {q:.0%} of masks below (part of image)",
                     *column(lambda f, n=n: f["area_quantiles"] and f["area_quantiles"][n])])
    rows += [["components in a mask, mean", *column(lambda f: f["components_per_mask"])],
             ["pixels of a component, median", *column(lambda f: f["component_pixels"])]]
    if any(f["cell_pixels"] for f in facts):
        rows.append(["pixels under a cell of the map", *column(lambda f: f["cell_pixels"])])
    for path in facts[0].get("agreement", {}):
        rows.append([f"agreement with {path} (mean Dice)",
                     *column(lambda f, path=path: f["agreement"][path])])
    print_table(title, ["class", *classes], rows)


def advice(classes: Sequence[str], facts: Sequence[dict], by_threshold: bool = False,
           auc: Sequence[float | None] | None = None) -> list[str]:
    """Plain sentences about what looks wrong; [] where nothing does.

    facts: those of describe(); by_threshold: whether --threshold and --confidence drew the masks;
    auc: ROC-AUC of each class on the out-of-fold probabilities, or None. A class below LEAST_AUC
    gets a warning (DEV-38).
    """
    said = []
    for c, (name, f) in enumerate(zip(classes, facts, strict=True)):
        cell = f["cell_pixels"]
        if f["labelled"] and f["labelled_without_mask"] > f["labelled"] / 2:
            more = "a lower --threshold or --confidence gives more of them" if by_threshold else \
                "another --method may find more of them"
            said.append(f"class {name}: more than half of its labelled images have no mask; {more}")
        if f["area_quantiles"] and f["area_quantiles"][1] > 0.5:
            said.append(_covers_much(name, "--review"))
        if cell and f["component_pixels"] and f["component_pixels"] < cell:
            said.append(f"class {name}: the typical component has {f['component_pixels']:.0f} "
                        f"pixels, less than the {cell:.0f} under one cell of the map; --method "
                        "contrast or auto, a larger --size or an earlier --target-layer sees more")
        if auc and auc[c] is not None and auc[c] < LEAST_AUC:
            said.append(f"class {name}: the classifier's ROC-AUC is {auc[c]:.2f}, too low to name "
                        "anything; train it longer or give it more images")
    return said


def _covers_much(name, pictures_of):
    return (f"class {name}: the typical mask covers more than half of the image, which is rarely a "
            f"defect; look at the pictures of {pictures_of}")


def advice_on_networks(rles: Mapping[tuple[str, int], str], sizes: Mapping[str, tuple[int, int]],
                       names: Sequence[str], classes: Sequence[str],
                       y: np.ndarray | None = None) -> list[str]:
    """Plain sentences about the masks that trained networks have drawn; [] where nothing looks
    wrong.

    rles: {(name, class index): run lengths}; sizes: {name: (H, W)}. y: (N, C), which images have a
    mask of the class to learn from; None for new images, where a class may well have no mask.
    """
    areas, said, large = measure_areas(rles, names, len(classes)), [], []
    pixels = np.array([sizes[name][0] * sizes[name][1] for name in names])
    for c, name in enumerate(classes):
        part = (areas[:, c] / pixels)[areas[:, c] > 0]
        taught = 0 if y is None else int(y[:, c].sum())
        if taught and not len(part):
            said.append(f"class {name}: no held-out image has a mask, where {taught} of "
                        f"{len(names)} have one to learn from; more --epochs help while the losses "
                        "still fall")
        elif len(part) and np.median(part) > 0.5:
            large.append(name)
    return said + ([_covers_much(", ".join(large), "--export overlay")] if large else [])


def doubt(areas: np.ndarray, y: np.ndarray | None, ignored: np.ndarray) -> np.ndarray:
    """How much a person should doubt each mask: float (N, C). A higher number is more doubtful.

    A labelled image without a mask gets 3, and an image with neither label nor mask gets -1. Any
    other doubt is a sum of two numbers from 0 to 1. The first is ignored / (ignored + area). The
    second is |log10(area / median area of the class)|, cut at 1. ignored: int (N, C), the number of
    ignored pixels.
    """
    score = np.full(areas.shape, -1.0)
    for c in range(areas.shape[1]):
        made = areas[:, c] > 0
        if made.any():
            far = np.abs(np.log10(areas[made, c] / np.median(areas[made, c])))
            left_out = ignored[made, c]
            score[made, c] = left_out / (left_out + areas[made, c]) + np.minimum(far, 1)
        if y is not None:
            score[y[:, c].astype(bool) & ~made, c] = MISSING
    return score


def write_review(out: Path, image_dir: Path, work: Any, rles: Mapping[tuple[str, int], str],
                 ignored: Mapping[tuple[str, int], str], count: int) -> None:
    """Write review.csv and review.png: the `count` most doubtful masks and the four surest ones.

    work: names, sizes, classes and labels of a make_masks.py run; ignored: run lengths of pixels in
    doubt {(name, class index): text}.
    """
    y = work.labels.y if work.labels is not None else None
    areas = measure_areas(rles, work.names, len(work.classes))
    score = doubt(areas, y, measure_areas(ignored, work.names, len(work.classes)))
    order = [divmod(int(k), len(work.classes)) for k in np.argsort(-score, axis=None, kind="stable")
             if score.flat[k] >= 0]
    chosen = order[:count]
    write_csv(out / "review.csv", ("ImageId", "ClassId", "doubt", "area"),
              [(work.names[i], work.classes[c], f"{score[i, c]:.4f}", int(areas[i, c]))
               for i, c in chosen])
    sure = [k for k in order[::-1] if k not in chosen][:4]

    def row(i, c):
        said = f"{work.names[i]}  class {work.classes[c]}  doubt {score[i, c]:.2f}"
        return (said + (": labelled, and no mask" if score[i, c] == MISSING else ""),
                _review_pictures(image_dir, work, rles, ignored, i, c))

    rows = [row(i, c) for i, c in chosen]
    if sure:
        rows += [(f"the {len(sure)} surest masks, to compare with", []), *(row(*k) for k in sure)]
    shown = sorted({c for _, c in chosen + sure})
    colours = [(f"mask of class {work.classes[c]}"[:60], COLOURS[c % len(COLOURS)])
               for c in shown[:MOST_COLOURS]]
    pictures.contact_sheet(
        out / "review.png", f"look first at these {len(chosen)} masks, the most doubtful on top",
        ["image", "mask", "left out of training"], rows,
        colours=[*colours, ("left out of training, because it is in doubt", (255, 255, 255))])


def _review_pictures(image_dir, work, rles, ignored, i, c):
    name, size = work.names[i], work.sizes[work.names[i]]
    image = images.open_image(image_dir / name)
    mask = rle_decode(rles.get((name, c), ""), size)
    left_out = rle_decode(ignored.get((name, c), ""), size)
    painted = np.zeros((c + 1, *size), bool)
    painted[c] = mask
    return [image, pictures.paint(image, painted), pictures.black_white(left_out)]
