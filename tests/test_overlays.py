"""benchmarks/overlays.py: which images it shows, and that it paints what the files say."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import overlays  # noqa: E402

from cam2seg.report import pictures  # noqa: E402


def test_rows_lie_evenly_between_best_and_worst():
    """Six images in three parts of two: the second best of each part is its middle."""
    assert overlays.spread(np.array([0.1, 0.9, 0.3, 0.7, 0.5, 0.2]), 3).tolist() == [3, 2, 0]
    assert overlays.spread(np.array([0.1, 0.9]), 2).tolist() == [1, 0]


def test_masks_are_painted_in_the_colours_of_their_classes(tmp_path):
    """One grey image of 8 x 8 whose upper left pixel is of class b in one of two files."""
    (tmp_path / "train_images").mkdir()
    Image.new("L", (8, 8), 100).save(tmp_path / "train_images/a.png")
    (tmp_path / "train.csv").write_text("ImageId,ClassId,EncodedPixels\na.png,a,64 1\na.png,b,1 1\n")
    (tmp_path / "x.csv").write_text("ImageId,ClassId,EncodedPixels\na.png,a,\na.png,b,1 1\n")
    out = tmp_path / "sheet.png"
    overlays.main(overlays.get_args(["--data", str(tmp_path), "--out", str(out), "--by", "x",
                                     "--rows", "1", "--width", "8", f"x={tmp_path}/x.csv"]))
    sheet, gap = np.array(Image.open(out)), pictures.GAP
    top = 2 * (pictures.LABEL + gap) + pictures.LABEL
    photo, truth, mine = (sheet[top:top + 8, gap + i * (8 + gap):][:, :8] for i in range(3))
    grey = np.full(3, 100)
    a, b = ((0.55 * grey + 0.45 * np.array(c)).round() for c in pictures.COLOURS[:2])
    assert (photo == grey).all()
    assert (truth[0, 0] == b).all() and (truth[7, 7] == a).all()
    assert (mine[0, 0] == b).all() and (mine[7, 7] == grey).all()
