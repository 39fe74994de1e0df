"""Folders of PNGs as masks, in three forms.

- One PNG for each image, called as the image (drawn.mask_files). A value is 0 in the background and
  1, 2, ... in the classes, in the order of classes.txt beside it, or of classes that are known
  anyway. A PNG in colour has the colours of class_colours. Where there is just one class, and
  nothing but black and white, white is that class.
- One folder for each class, with one PNG for each image, black and white.
- CVAT's "Segmentation mask 1.1": labelmap.txt names the colours of SegmentationClass/, and
  ImageSets/Segmentation/ lists the images, also those without a mask.
"""

import filecmp
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import coco
from .classes import check_classes, in_order
from .drawn import Drawn, class_of, folder_of, owners
from .errors import DataError
from .files import regular
from .image_folder import list_images
from .mask_pngs import WHITE, has_palette, read_colours, read_values

CLASSES, LABELMAP = "classes.txt", "labelmap.txt"
LISTS, PNGS, OBJECTS = "ImageSets/Segmentation", "SegmentationClass", "SegmentationObject"
MOST = 254  # classes that the values of a PNG tell apart where their names are unknown
LABEL = re.compile(r"(.+):([0-9]{1,3},[0-9]{1,3},[0-9]{1,3}):[^:]*:[^:]*")


def read(path: Path, image_dir: Path | str | None, classes: Sequence[str] | None,
         only_masks: bool) -> Drawn | None:
    """The masks of a COCO JSON file or of a folder; None for a CSV and for a folder of images.

    classes: the names that the values 1, 2, ... stand for where there is no classes.txt.
    only_masks: a folder holds masks in any case. Raises DataError.
    """
    if path.suffix.lower() == ".json":
        return coco.read(path)
    if not path.is_dir() or not (only_masks or _has_masks(path, image_dir)):
        return None
    if image_dir is None:
        raise DataError(f"{path}: a folder of masks, expected a folder of images beside it")
    if path.resolve().is_relative_to(Path(image_dir).resolve()):
        raise DataError(f"{path}: a folder of masks inside the folder of images {image_dir}, which "
                        "would be taken for images: move it out of there")
    owner = owners(list_images(image_dir))
    return (_read_cvat if (path / LABELMAP).is_file() else _read_pngs)(path, owner, classes)


def _has_masks(path, image_dir):
    """Whether a folder holds masks, and not the images themselves in one folder for each class."""
    if (path / LABELMAP).is_file() or (path / CLASSES).is_file():
        return True
    if image_dir is None or path.resolve() == Path(image_dir).resolve():
        return False
    files = list_images(path)
    known = [f for f in files if (Path(image_dir) / f).is_file()]
    if known and any("/" in f for f in files):  # copies of the images, or masks called like them
        return not filecmp.cmp(path / known[0], Path(image_dir) / known[0], shallow=False)
    return all(f.lower().endswith(".png") for f in files)


def _lines(path):
    """The lines of a text file that say something."""
    try:
        text = Path(regular(path)).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as text in UTF-8 ({error})") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def _owner(owner, path, file):
    """The image that a PNG belongs to. path: the file itself, for an error message."""
    if file.lower() not in owner:
        raise DataError(f"{path}: no image has this name, expected a.png for the image a.jpg")
    return owner[file.lower()]


def _read_pngs(path, owner, classes):
    if (path / CLASSES).is_file():
        classes = _lines(path / CLASSES)
        check_classes(dict.fromkeys(classes, str(path / CLASSES)))
        if len(set(classes)) < len(classes) or not classes:
            raise DataError(f"{path / CLASSES}: expected the name of a class in each line, and "
                            "none twice")
    files = list_images(path)
    parts = [f.partition("/")[::2] for f in files]
    known = {folder_of(name) for name in classes} if classes else {f for f, _ in parts}
    by_class = all(f in known and rest.lower() in owner for f, rest in parts)
    if by_class and all(f.lower() in owner for f in files):  # of images in folders of their own
        by_class = not has_palette(path / files[0])
    return (_one_a_class if by_class else _one_an_image)(path, files, owner, classes)


def _one_an_image(path, files, owner, classes):
    most, found, sizes = len(classes) if classes else MOST, {}, {}
    with ThreadPoolExecutor(4) as pool:  # Pillow decodes without the GIL
        seen = list(pool.map(lambda file: read_values(path / file, most), files))
    white = {v for _, rles in seen for v in rles} <= {WHITE} and (most == 1 or not classes)
    for file, (size, rles) in zip(files, seen, strict=True):
        name = _owner(owner, path / file, file)
        if name in found:
            raise DataError(f"{path / file}: {name} has the mask {found[name][0]} already")
        wrong = [v for v in rles if v > most and not white]
        if wrong:
            raise DataError(f"{path / file}: the value {wrong[0]}, expected 0 to {most}"
                            + (f" for the classes {', '.join(classes)}"[:200] if classes else ""))
        found[name], sizes[name] = (path / file, rles), size
    cells, known = [], classes or [str(n + 1) for n in range(MOST)]
    for name, (place, rles) in found.items():
        cells.append((str(place), name, "", None))
        cells += [(str(place), name, known[0 if white else v - 1], rle)
                  for v, rle in rles.items()]
    return Drawn(cells, sizes, classes or in_order({k for _, _, k, _ in cells if k}))


def _one_a_class(path, files, owner, classes):
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(lambda file: read_values(path / file, 0), files))
    cells, sizes, first = [], {}, {}
    for file, (size, rles) in zip(files, seen, strict=True):
        folder, _, rest = file.partition("/")
        name, place = _owner(owner, path / file, rest), str(path / file)
        if len(rles) > 1 or not set(rles) <= {1, WHITE}:
            raise DataError(f"{place}: the value {max({*rles} - {WHITE})}, expected 0 and 255 in "
                            "the folder of a class")
        if (folder, name) in first:
            raise DataError(f"{place}: {name} has the mask {first[folder, name]} already")
        if sizes.setdefault(name, size) != size:
            raise DataError(f"{place}: {size[0]} x {size[1]} pixels, but another mask of {name} "
                            f"has {sizes[name][0]} x {sizes[name][1]}")
        first[folder, name] = place
        cells += [(place, name, class_of(folder), rle) for rle in rles.values()]
    clean = {name: place for (_, name), place in reversed(first.items())}
    cells += [(place, name, "", None) for name, place in clean.items()]
    found = in_order({class_of(file.partition("/")[0]) for file in files})
    check_classes(dict.fromkeys(found, str(path)))
    return Drawn(cells, sizes, classes or found)


def _read_cvat(path, owner, _):
    colours, classes = _labelmap(path / LABELMAP)
    cells, sizes, first, top = [], {}, {}, path / PNGS
    for file in list_images(top) if top.is_dir() and any(top.iterdir()) else []:
        name, place = _owner(owner, top / file, file), str(top / file)
        if name in first:
            raise DataError(f"{place}: {name} has the mask {first[name]} already")
        first[name] = place
        sizes[name], rles = read_colours(place, colours)
        cells += [(place, name, "", None)]
        cells += [(place, name, classes[v - 1], rle) for v, rle in rles.items()]
    for text in sorted((path / LISTS).glob("*.txt")):
        for line in _lines(text):
            file = line.strip('"') + ".png"
            name = _owner(owner, f"{text}, '{line[:200]}'", file)
            if name not in first:  # CVAT writes no PNG for an image without a mask
                first[name] = str(text)
                cells += [(str(text), name, "", None)]
    if not cells:
        raise DataError(f"{path}: no image in {LISTS}/ and none in {PNGS}/, expected the folders "
                        "of CVAT's Segmentation mask 1.1")
    return Drawn(cells, sizes, in_order(classes))


def _labelmap(path):
    """{colour: number} of the colours in a labelmap.txt, 0 for black, and the C class names."""
    colours, classes = {(0, 0, 0): 0}, []
    for line in _lines(path):
        if line.startswith("#"):
            continue
        found = LABEL.fullmatch(line)
        colour = tuple(map(int, found[2].split(","))) if found else ()
        if not found or max(colour) > 255:
            raise DataError(f"{path}: '{line[:80]}', expected a line as crack:230,159,0::")
        if colour == (0, 0, 0):
            continue
        if colour in colours or found[1] in classes:
            raise DataError(f"{path}: '{line[:80]}' has the name or the colour of another line")
        classes.append(found[1])
        colours[colour] = len(classes)
    check_classes(dict.fromkeys(classes, str(path)))
    return colours, classes
