"""What the tests of the report share: a page taken apart, and small folders that look like runs."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from cam2seg import masks
from cam2seg.report.page import VOID
from cam2seg.report.panels import Content


class Page(HTMLParser):
    """The elements of a page (name, attributes), its tables {caption: rows of cells} and its text.

    Raises ValueError where an element is not closed in the order it was opened.
    """

    def __init__(self, html):
        super().__init__()
        self.elements, self.tables, self.said, self.open, self.errors = [], {}, [], [], []
        self.caption = None
        self.feed(html)
        self.close()
        if self.open:
            raise ValueError(f"never closed: {self.open}")

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        if name == "caption":
            self.caption = ""
        if name == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if name in ("td", "th"):
            self.tables[self.caption][-1].append("")

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            raise ValueError(f"</{name}> closes another element")

    def handle_data(self, data):
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.tables[self.caption][-1][-1] += data
        if "style" not in self.open:
            self.said.append(data)

    def all(self, name):
        """The attributes of all elements of that name."""
        return [attributes for found, attributes in self.elements if found == name]

    @property
    def text(self):
        return " ".join(self.said)


SCORE = [[0.25, 0.75], 0.5]
SCORES = dict.fromkeys(("dice_pairs", "dice_present", "dice_dataset", "iou", "precision",
                        "recall"), SCORE)


def write_run(folder, args, metrics=None, **more):
    """args.json and metrics.json of a run; `more` goes to args.json."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"args": args, "classes": ["1", "2"], "sha256": {}, "versions": {"torch": "9"}, **more}
    (folder / "args.json").write_text(json.dumps(said))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))


def evaluation(folder, title="a", path="x/masks.csv", classes=("1", "2")):
    """The folder of a run of evaluate.py that has compared one file with the truth."""
    write_run(folder, {"masks": [f"{title}={path}"], "missing": "error", "data": "photos"},
              {"classes": list(classes), "images": 4, "left_out": 0,
               "masks": {title: {"scores": SCORES, "folds": {}}}}, classes=list(classes))


def content(folder, count=4, classes=("1", "2"), names=None, files=None):
    """A Content of images of 24 x 32 pixels, of which `files` are there: image i has a true mask of
    class 0, and of class 1 where i is odd."""
    names = names or [f"{i:05d}.png" for i in range(count)]
    folder.mkdir(exist_ok=True)
    for name in names[:files]:
        Image.fromarray(np.full((24, 32), 90, np.uint8)).save(folder / name)
    truth, made = {}, {}
    for i, name in enumerate(names):
        for c in range(1 + i % 2):
            drawn = np.zeros((24, 32), bool)
            drawn[2:8 + i % 13, 4:20] = True
            truth[name, c] = masks.rle_encode(drawn)
            made[name, c] = masks.rle_encode(np.roll(drawn, i % 7, axis=1))
    y = np.array([[1, i % 2] for i in range(len(names))], np.uint8)
    return Content(names, list(classes), dict.fromkeys(names, (24, 32)), Path(folder), truth,
                   {"a": made}, {}, (names, y))
