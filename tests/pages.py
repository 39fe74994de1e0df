"""What the tests of the report share: a page taken apart, and small folders that look like runs."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from cam2seg import masks, metrics
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


def check_loads_nothing(html):
    """No element or style of a page fetches anything."""
    shown = Page(html)
    names = {name for name, _ in shown.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "video"}
    for name, attributes in shown.elements:
        assert not [key for key in attributes if key.startswith("on")], (name, attributes)
        assert not {"srcset", "action", "xlink:href"} & attributes.keys()
        assert name == "img" or "src" not in attributes
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    policy, = (m["content"] for m in shown.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src" not in policy
    assert "url(" not in html and "@import" not in html


def figures(values):
    """Numbers as a table shows them."""
    return ["-" if v is None else f"{v:.4f}" for v in values]


def scores(start):
    """Scores of two classes, as mask_scores gives them, all with other values."""
    return {name: [[start + 0.01 * n, start + 0.01 * n + 0.001], start + 0.01 * n + 0.002]
            for n, name in enumerate(metrics.SCORES)}


def write_run(folder, args, numbers=None, **more):
    """args.json and metrics.json of a run; `more` goes to args.json."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"args": args, "classes": ["1", "2"], "sha256": {}, "versions": {"torch": "9"}, **more}
    (folder / "args.json").write_text(json.dumps(said))
    if numbers is not None:
        (folder / "metrics.json").write_text(json.dumps(numbers))


def evaluation(folder, title="a", path="x/masks.csv", classes=("1", "2")):
    """The folder of a run of evaluate.py that has compared one file with the truth."""
    write_run(folder, {"masks": [f"{title}={path}"], "missing": "error", "data": "photos"},
              {"classes": list(classes), "images": 4, "left_out": 0,
               "masks": {title: {"scores": scores(0.5), "folds": {}}}}, classes=list(classes))


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
            made[name, c] = masks.rle_encode(np.roll(drawn, i % 7 + c, axis=1))
    y = np.array([[1, i % 2] for i in range(len(names))], np.uint8)
    return Content(names, list(classes), dict.fromkeys(names, (24, 32)), Path(folder), truth,
                   {"a": made}, {}, (names, y))
