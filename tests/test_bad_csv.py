"""Label files, mask files and folds.csv that are refused: the whole line, for each."""

import pytest
from conftest import HEAD, edited, good_rows

LONG = 10 ** 6
FORMS = ("ImageId,ClassId,EncodedPixels | ImageId_ClassId,EncodedPixels | "
         "Image_Label,EncodedPixels | ImageId,ClassId | ImageId and one 0/1 column per class")
ABSENT = "is not in the image folder"
IDS = "expected ids from 1 up"

LABEL_FILES = {  # what is wrong: text or bytes, the message after the file's name
    "a line break in a name": (edited(2, '"02\n.jpg",1,1 3'), rf", row 5: image '02\n.jpg' {ABSENT}"),
    "a tab in a name": (edited(2, "0\t2.jpg,1,1 3"), rf", row 4: image '0\t2.jpg' {ABSENT}"),
    "an escape in a name": (edited(2, "\x1b[2J.jpg,1,1 3"), rf", row 4: image '\x1b[2J.jpg' {ABSENT}"),
    "a null byte in a name": (edited(2, "02.jpg\0,1,1 3"), rf", row 4: image '02.jpg\x00' {ABSENT}"),
    "a line separator in a class": (
        edited(2, "02.jpg,1\u2028,1 3").replace("1\u2028", "1\u2028x"),
        rf", row 4: class '1\u2028x', {IDS}"),
    "a name of 1e6 letters": (edited(2, "x" * LONG + ",1,1 3"),
                              f", row 4: image '{'x' * 200}' {ABSENT}"),
    "a class of 1e6 letters": (edited(2, f"02.jpg,{'x' * LONG},1 3"),
                               f", row 4: class '{'x' * 40}', {IDS}"),
    "a run length of 1e6 digits": (edited(2, f"02.jpg,1,{'9' * LONG} 1"),
                                   f", row 4: 02.jpg: '{'9' * 20}' is not a whole number"),
    "a column of 1e6 letters": (f"ImageId;{'x' * LONG}\n00.jpg;1\n",
                                f", row 1: columns ImageId;{'x' * 192}; expected {FORMS}"),
    "a quote that is not closed": (edited(2, '"02.jpg,1,1 3'),
                                   ": cannot be read as CSV in UTF-8 (unexpected end of data, row 13)"),
    "text after a quote": (edited(2, '"02".jpg,1,1 3'),
                           ": cannot be read as CSV in UTF-8 (',' expected after '\"', row 4)"),
}


@pytest.mark.parametrize("text, said", LABEL_FILES.values(), ids=LABEL_FILES)
def test_label_file(photos, tmp_path, refused, text, said):
    labels = tmp_path / "labels.csv"
    labels.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refused("train_cls", "--images", photos, "--labels", labels, "--out", tmp_path / "out",
                   "--folds", 3) == f"{labels}{said}"


def test_a_class_with_a_name_of_1e6_letters_that_never_occurs(photos, tmp_path, refused):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"ImageId,{'x' * LONG}\n" + "".join(f"{i:02d}.jpg,0\n" for i in range(12)))
    said = refused("train_cls", "--images", photos, "--labels", labels, "--out", tmp_path / "out")
    assert said.startswith(f"{labels}: class xxx") and said.endswith("x ...") and len(said) == 1004
