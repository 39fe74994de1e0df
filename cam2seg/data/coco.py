"""Masks as COCO JSON: run lengths, compressed or not, and polygons are read; the first are written.

COCO counts pixels down the columns, as our run lengths do, but from a run of pixels outside the
mask on: 0, 0, 1, 1, 1, 0, 1 is [2, 3, 1, 1], and a mask that begins with its first pixel has a
leading 0.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..masks import checked_runs, rle_decode, rle_encode
from .classes import check_classes, in_order
from .drawn import Drawn
from .errors import DataError
from .files import regular, whole_file
from .polygons import polygon_mask

MOST_BYTES = 2**30  # of a file, which is read as a whole
MOST_PIXELS = 178956970  # Pillow opens no image with more
FARTHEST = 10**6  # pixels: the largest coordinate of a polygon, to either side


def to_counts(rle: str, size: tuple[int, int]) -> list[int]:
    """COCO's counts of our run lengths, for an image of size (H, W)."""
    runs = checked_runs(rle, size)
    edges = np.concatenate([[0], np.stack([runs[:, 0] - 1, runs.sum(axis=1) - 1], 1).ravel(),
                            [size[0] * size[1]]])
    counts = np.diff(edges).tolist()
    return counts[:-1] if len(counts) > 1 and not counts[-1] else counts


def from_counts(counts: Sequence[int]) -> str:
    """Our run lengths of COCO's counts."""
    ends = np.cumsum(np.array(counts, np.int64))
    edges = np.stack([ends[:len(counts) // 2 * 2:2], ends[1::2]], 1)  # [start, end), from 0
    edges = edges[edges[:, 1] > edges[:, 0]]
    starts = np.append(True, edges[1:, 0] > edges[:-1, 1])[:len(edges)]  # runs that touch are one
    first, last = edges[starts, 0], edges[np.roll(starts, -1), 1]
    return " ".join(map(str, np.stack([first + 1, last - first], 1).ravel().tolist()))


def compress(counts: Sequence[int]) -> str:
    """COCO's text of counts.

    From the fourth on, each count is less the one two before it. Each number is written in groups
    of five bits, the lowest first, as letters from code 48 up. A sixth bit says that more follow.
    """
    out = []
    for i, count in enumerate(counts):
        x, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            group, x = x & 31, x >> 5
            more = x != (-1 if group & 16 else 0)
            out.append(chr(group + 32 * more + 48))
    return "".join(out)


def decompress(text: str) -> list[int]:
    """The counts of COCO's text. Raises ValueError for a text that compress does not write."""
    counts, x, shift = [], 0, 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"'{letter}' in its counts, expected compressed run lengths")
        x, shift = x | (code & 31) << shift, shift + 5
        if code & 32:
            continue
        x -= 1 << shift if code & 16 else 0  # the sign is the highest bit of the last group
        counts.append(x + (counts[-2] if len(counts) > 2 else 0))
        x, shift = 0, 0
    if shift:
        raise ValueError("its counts end within a number, expected compressed run lengths")
    return counts


def write(path: Path | str, names: Sequence[str], sizes: Mapping[str, tuple[int, int]],
          classes: Sequence[str], rles: Mapping[tuple[str, int], str]) -> None:
    """Write COCO JSON of all named images, clean ones too, with one annotation for each mask."""
    images, annotations = [], []
    for i, name in enumerate(names):
        H, W = sizes[name]
        images.append({"id": i + 1, "file_name": name, "height": H, "width": W})
        for c in range(len(classes)):
            if rles.get((name, c)):
                rows, columns = np.nonzero(rle_decode(rles[name, c], (H, W)))
                x, y = int(columns.min()), int(rows.min())
                annotations.append({
                    "id": len(annotations) + 1, "image_id": i + 1, "category_id": c + 1,
                    "iscrowd": 0, "area": len(rows),
                    "bbox": [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1],
                    "segmentation": {"size": [H, W],
                                     "counts": compress(to_counts(rles[name, c], (H, W)))}})
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(classes)]
    with whole_file(path, encoding="utf-8") as file:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, file)


def read(path: Path | str) -> Drawn:
    """Read the masks of a COCO JSON file. Raises DataError.

    The masks of an image that are of one category are joined. An image without any is clean.
    """
    parts = _load(path)
    categories, images, sizes, found = {}, {}, {}, {}
    for where, part in _items(path, parts, "categories"):
        name = _get(where, part, "name", str, "text")
        if name in categories.values():
            raise DataError(f"{where}: '{name[:40]}' is the name of two categories")
        categories[_new_id(where, part, categories)] = name
    check_classes(dict.fromkeys(categories.values(), str(path)))
    for where, part in _items(path, parts, "images"):
        name = _get(where, part, "file_name", str, "text")
        if name in sizes:
            raise DataError(f"{where}: '{name[:200]}' is the name of two images")
        size = tuple(_get(where, part, key, int, "a whole number from 1 up")
                     for key in ("height", "width"))
        if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
            raise DataError(f"{where}: {size[0]} x {size[1]} pixels, expected 1 to {MOST_PIXELS}")
        images[_new_id(where, part, images)], sizes[name] = (where, name), size
    for where, part in _items(path, parts, "annotations"):
        of = [_get(where, part, key, int, f"an id of {among}") for key, among in
              (("image_id", "images"), ("category_id", "categories"))]
        for key, known in zip(of, (images, categories), strict=True):
            if key not in known:
                raise DataError(f"{where}: the id {key}, which nothing in the file has")
        name = images[of[0]][1]
        rle = _run_lengths(where, part.get("segmentation"), sizes[name])
        key = name, categories[of[1]]
        found[key] = where, _union(found[key][1], rle, sizes[name]) if key in found else rle
    cells = [(where, name, "", None) for where, name in images.values()]
    cells += [(where, *key, rle) for key, (where, rle) in found.items()]
    return Drawn(cells, sizes, in_order(categories.values()))


def _load(path):
    def refuse(word):
        raise ValueError(f"{word}, expected finite numbers")

    try:
        if Path(regular(path)).stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: a file of more than {MOST_BYTES} bytes, expected COCO JSON "
                            "in parts")
        return json.loads(Path(path).read_text(encoding="utf-8-sig"), parse_constant=refuse)
    except DataError:
        raise
    except (OSError, RecursionError, ValueError) as error:  # one bracket in another, thousands deep
        raise DataError(f"{path}: cannot be read as COCO JSON ({error})") from error


def _items(path, parts, key):
    """(place, part) of each part in the list of that name."""
    found = _get(path, parts, key, list, "a list, as COCO JSON has it")
    return [(f"{path}, {key}[{i}]", part) for i, part in enumerate(found)]


def _get(where, part: Any, key, kind, said):
    value = part.get(key) if isinstance(part, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        text = f"'{value[:40]}'" if isinstance(value, str) else f"{value}"[:40] \
            if isinstance(value, (int, float)) else "is missing or of another type"
        raise DataError(f"{where}: {key} {text}, expected {said}")
    return value


def _new_id(where, part, known):
    key = _get(where, part, "id", int, "a whole number")
    if key in known:
        raise DataError(f"{where}: the id {key} stands above already")
    return key


def _run_lengths(where, found, size):
    """Our run lengths of one annotation's segmentation."""
    pixels = size[0] * size[1]
    if isinstance(found, list) and found:
        mask = np.zeros(size, bool)
        for polygon in found:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(
                    type(v) in (int, float) and math.isfinite(v) and abs(v) <= FARTHEST
                    for v in polygon):
                raise DataError(f"{where}: a polygon that is no list of three or more pairs of "
                                f"finite numbers up to {FARTHEST}")
            mask |= polygon_mask(np.array(polygon, np.float64).reshape(-1, 2), size)
        return rle_encode(mask)
    counts = found.get("counts") if isinstance(found, dict) else None
    if not isinstance(counts, (str, list)):
        raise DataError(f"{where}: no segmentation, expected run lengths or polygons")
    if found.get("size") != list(size):
        raise DataError(f"{where}: run lengths of another size than the image's {size[0]} x "
                        f"{size[1]}")
    try:
        counts = decompress(counts) if isinstance(counts, str) else counts
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if not all(type(n) is int and 0 <= n <= pixels for n in counts) or sum(counts) != pixels:
        raise DataError(f"{where}: counts that do not sum to {size[0]} x {size[1]} pixels")
    return from_counts(counts)


def _union(a, b, size):
    return rle_encode(rle_decode(a, size) | rle_decode(b, size))
