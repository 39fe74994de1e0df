"""The contact sheets: frames, headings and legends."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from cam2seg.data.colours import COLOURS
from cam2seg.report import mask_report, pictures
from cam2seg.report.pictures import BOX, EDGE, GAP, LABEL, PAPER


def white(height, width):
    return np.full((height, width, 3), 255, np.uint8)


def rows_of(sheet, x, colour):
    """The rows of a sheet (H, W, 3) that have this colour in column x."""
    return np.flatnonzero((sheet[:, x] == colour).all(axis=1)).tolist()


def test_a_frame_of_one_pixel_lies_around_each_picture(tmp_path):
    pictures.contact_sheet(tmp_path / "a.png", "", ["x"], [("", [white(8, 10)])], width=10)
    sheet = np.array(Image.open(tmp_path / "a.png"))
    top = 2 * (LABEL + GAP) + LABEL
    assert (sheet[top:top + 8, GAP:GAP + 10] == 255).all()
    frame = sheet[top - 1:top + 9, GAP - 1:GAP + 11].copy()
    frame[1:-1, 1:-1] = EDGE
    assert (frame == EDGE).all()
    assert (sheet[top + 9:] == PAPER).all() and (sheet[top:, GAP + 11:] == PAPER).all()


def test_a_row_without_pictures_is_a_heading_under_a_line(tmp_path):
    for name, between in (("a", []), ("b", [("surest", [])])):
        pictures.contact_sheet(tmp_path / f"{name}.png", "", ["x"], [
            ("", [white(8, 80)]), *between, ("", [white(8, 80)])], width=80)
    plain, parted = (np.array(Image.open(tmp_path / f"{name}.png")) for name in "ab")
    more = len(parted) - len(plain)
    x = GAP + 1  # within the first column, where a frame and the line have pixels
    first = rows_of(parted, x, (255, 255, 255))
    line = [y for y in rows_of(parted, x, EDGE) if first[7] + 1 < y < first[8] - 1]
    assert more > LABEL and len(line) == 2 and line[1] == line[0] + 1
    assert (parted[line[0], GAP:-GAP] == EDGE).all()
    text = parted[line[1] + 1:first[8] - 1]
    assert (text < 100).all(axis=2).any()


def test_a_legend_is_as_wide_as_it_must_be_and_goes_on_in_a_second_row():
    entries = [("crack", COLOURS[0]), ("pit", (255, 255, 255))]
    wide, narrow = (np.array(pictures.legend(entries, width)) for width in (300, 70))
    assert wide.shape[:2] == (2 * GAP + BOX, 300) and narrow.shape[0] == wide.shape[0] + BOX + GAP
    inside = wide[GAP:GAP + BOX, GAP:GAP + BOX]
    assert (inside == COLOURS[0]).all() and (wide[GAP - 1, GAP:GAP + BOX] == EDGE).all()
    assert (narrow[2 * GAP + BOX:][:BOX, GAP:GAP + BOX] == 255).all()
    assert pictures.legend([("x" * 40, COLOURS[0])], 70).width > 70


def test_a_review_shows_the_colours_of_its_classes_and_parts_the_surest(tmp_path, monkeypatch):
    names = [f"{i}.png" for i in range(6)]
    for name in names:
        Image.new("L", (8, 8)).save(tmp_path / name)
    y = np.zeros((6, 3), np.uint8)
    y[:, 1] = 1
    work = SimpleNamespace(names=names, classes=["a", "b", "c"], labels=SimpleNamespace(y=y),
                           sizes=dict.fromkeys(names, (8, 8)))
    rles = {(name, 1): f"1 {4 + 2 * i}" for i, name in enumerate(names[:5])}
    seen = []
    monkeypatch.setattr(mask_report.pictures, "contact_sheet",
                        lambda *args, **more: seen.append((args, more)))
    for count in (2, 6):
        mask_report.write_review(tmp_path, tmp_path, work, rles, {}, count)
    (_, title, _, rows), more = seen[0]
    assert title == "look first at these 2 masks, the most doubtful on top"
    assert [bool(panels) for _, panels in rows] == [True, True, False] + [True] * 4
    assert rows[0][0] == "5.png  class b  doubt 3.00: labelled, and no mask"
    assert rows[1][0].startswith("0.png  class b  doubt 0.") and rows[1][0][-1].isdigit()
    assert rows[2][0] == "the 4 surest masks, to compare with"
    assert more["colours"] == [("mask of class b", COLOURS[1]),
                               ("left out of training, because it is in doubt", (255, 255, 255))]
    assert all(panels for _, panels in seen[1][0][3])  # nothing is left for a comparison
