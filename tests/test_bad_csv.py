"""Label files, mask files and folds.csv that are refused: the whole line, for each."""

import pytest
from conftest import HEAD, edited, good_rows

LONG = 10 ** 6
FORMS = ("ImageId,ClassId,EncodedPixels | ImageId_ClassId,EncodedPixels | "
         "Image_Label,EncodedPixels | ImageId,ClassId | ImageId and one 0/1 column per class")
COMMAS = "expected commas between the columns"
ABSENT = "is not in the image folder"
IDS = "expected ids from 0 up to 999"
NO_CSV = "cannot be read as CSV in UTF-8"


def row(text, n=4):
    """The label file of the photos with row n replaced."""
    return edited(n - 2, text)


LABEL_FILES = {  # what is wrong: text or bytes, the message after the file's name
    "bytes of a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", f": {NO_CSV} ('utf-8' codec can't "
                           "decode byte 0x89 in position 0: invalid start byte)"),
    "UTF-16": (row("02.jpg,1,1 3").encode("utf-16"), f": {NO_CSV} ('utf-8' codec can't decode "
               "byte 0xff in position 0: invalid start byte)"),
    "Latin-1": (row("r\xf6hre.jpg,1,1 3").encode("latin-1"),
                f": {NO_CSV} ('utf-8' codec can't decode byte 0xf6 in position 57: invalid start "
                "byte)"),
    "blank lines only": ("\r\n\r\n\n", f": no rows, expected {FORMS}"),
    "tabs": ("ImageId\tClassId\n00.jpg\t1\n",
             rf", row 1: tabs in ImageId\tClassId, {COMMAS}"),
    "bars": ("ImageId|ClassId\n00.jpg|1\n", f", row 1: bars in ImageId|ClassId, {COMMAS}"),
    "no header": ("00.jpg,1,1 3\n01.jpg,1,1 3\n",
                  f", row 1: columns 00.jpg,1,1 3; expected the names of the columns, {FORMS}"),
    "an unknown first column": ("name,pit\n00.jpg,1\n",
                                f", row 1: columns name,pit; expected {FORMS}"),
    "no ImageId": ("ClassId,EncodedPixels\n1,1 3\n",
                   f", row 1: columns ClassId,EncodedPixels; expected {FORMS}"),
    "a doubled column": (HEAD.strip() + ",ClassId\n00.jpg,1,1 3,2\n", ", row 1: a column occurs "
                         "twice in ImageId,ClassId,EncodedPixels,ClassId"),
    "a doubled class": ("ImageId,pit,pit\n00.jpg,0,1\n",
                        ", row 1: a column occurs twice in ImageId,pit,pit"),
    "a class without a name": ("ImageId,pit,\n00.jpg,1,0\n",
                               ", row 1: a column without a name in ImageId,pit,"),
    "a cell too many": (row("02.jpg,1,1 3,"),
                        ", row 4: 4 cells, expected 3 (ImageId,ClassId,EncodedPixels)"),
    "run lengths with commas": (row("02.jpg,1,1,3"),
                                ", row 4: 4 cells, expected 3 (ImageId,ClassId,EncodedPixels)"),
    "an unclosed quote": (row('"02.jpg,1,1 3'), f": {NO_CSV} (unexpected end of data, row 13)"),
    "text after a quote": (row('"02".jpg,1,1 3'),
                           f": {NO_CSV} (',' expected after '\"', row 4)"),
    "a doubled row": (row("07.jpg,2,5 5", 13), ", row 13: 07.jpg 2 stands in row 12 already"),
    "a doubled image of 0 and 1": ("ImageId,a\n00.jpg,1\n01.jpg,0\n00.jpg,0\n",
                                   ", row 4: 00.jpg  stands in row 2 already"),
    "a doubled joined row": ("ImageId_ClassId,EncodedPixels\n00.jpg_1,1 3\n00.jpg_1,\n",
                             ", row 3: 00.jpg 1 stands in row 2 already"),
    "a joined row without class": ("ImageId_ClassId,EncodedPixels\n00.jpg,1 3\n",
                                   ", row 2: '00.jpg', expected image and class as a.jpg_1"),
    "class -1": (row("02.jpg,-1,1 3"), f", row 4: class '-1', {IDS}"),
    "class 1.0": (row("02.jpg,1.0,1 3"), f", row 4: class '1.0', {IDS}"),
    "class 1e0": (row("02.jpg,1e0,1 3"), f", row 4: class '1e0', {IDS}"),
    "class nan": (row("02.jpg,nan,1 3"), f", row 4: class 'nan', {IDS}"),
    "class 01": (row("02.jpg,01,1 3"), f", row 4: class '01', {IDS}"),
    "class 1000": (row("02.jpg,1000,1 3"), f", row 4: class '1000', {IDS}"),
    "a name among ids": (row("02.jpg,pit,1 3"), f", row 4: class 'pit', {IDS}"),
    "a mask without class": (row("02.jpg,,1 3"),
                             ", row 4: run lengths without a class, expected both"),
    "no class at all": (HEAD + "00.jpg,,\n",
                        ": no class in it, expected at least one labelled image"),
    "an empty 0/1": ("ImageId,a\n00.jpg,\n", ", row 2: '' in a, expected 0 or 1"),
    "a probability": ("ImageId,a\n00.jpg,0.5\n", ", row 2: '0.5' in a, expected 0 or 1"),
    "an absolute name": (row("/etc/passwd,1,1 3"), f", row 4: image '/etc/passwd' {ABSENT}"),
    "a way out and back": (row("../photos/02.jpg,1,1 3"),
                           f", row 4: image '../photos/02.jpg' {ABSENT}, but '02.jpg' is"),
    "a way through itself": (row("./02.jpg,1,1 3"),
                             f", row 4: image './02.jpg' {ABSENT}, but '02.jpg' is"),
    "a backslash": (row("..\\02.jpg,1,1 3"),
                    rf", row 4: image '..\02.jpg' {ABSENT}, but '02.jpg' is"),
    "no name": (row(",1,1 3"), f", row 4: image '' {ABSENT}"),
    "another case": (row("02.JPG,1,1 3"), f", row 4: image '02.JPG' {ABSENT}, but '02.jpg' is"),
    "a line break in a name": (row('"02\n.jpg",1,1 3'), rf", row 5: image '02\n.jpg' {ABSENT}"),
    "a tab in a name": (row("0\t2.jpg,1,1 3"), rf", row 4: image '0\t2.jpg' {ABSENT}"),
    "an escape in a name": (row("\x1b[2J.jpg,1,1 3"), rf", row 4: image '\x1b[2J.jpg' {ABSENT}"),
    "a null byte in a name": (row("02.jpg\0,1,1 3"), rf", row 4: image '02.jpg\x00' {ABSENT}"),
    "a line separator in a class": (row("02.jpg,1\u2028x,1 3"),
                                    rf", row 4: class '1\u2028x', {IDS}"),
    "a carriage return in a class": (row('02.jpg,"a\rb",1 3'), r", row 5: class 'a\rb', "
                                     "expected no control character in a name"),
    "a line break in a column": ('ImageId,"a\nb"\n00.jpg,1\n', r", row 1: class 'a\nb', expected "
                                 "no control character in a name"),
    "a name of 1e6 letters": (row("x" * LONG + ",1,1 3"), f", row 4: image '{'x' * 200}' {ABSENT}"),
    "a class of 1e6 letters": (row(f"02.jpg,{'x' * LONG},1 3"),
                               f", row 4: class '{'x' * 40}', {IDS}"),
    "a column of 1e6 letters": (f"ImageId;{'x' * LONG}\n00.jpg;1\n",
                                f", row 1: semicolons in ImageId;{'x' * 192}, {COMMAS}"),
}
RUNS = {  # run lengths of row 4, the message after the image's name; images have 40 x 40 pixels
    "an odd count": ("1 3 9", "3 values, expected start/length pairs"),
    "a start alone": ("7", "1 values, expected start/length pairs"),
    "length 0": ("5 0", "run '5 0': start and length are 1 or more"),
    "length -1": ("5 -1", "run '5 -1': start and length are 1 or more"),
    "start 0": ("0 4", "run '0 4': start and length are 1 or more"),
    "start -3": ("-3 4", "run '-3 4': start and length are 1 or more"),
    "overlap": ("1 5 3 5", "run '3 5' starts before the run ahead of it ends"),
    "a doubled run": ("1 5 1 5", "run '1 5' starts before the run ahead of it ends"),
    "unsorted": ("9 2 1 2", "run '1 2' starts before the run ahead of it ends"),
    "beyond the image": ("1600 2", "run '1600 2' ends beyond the image's 40 x 40 pixels"),
    "a start beyond": ("1 1 1601 1", "run '1601 1' ends beyond the image's 40 x 40 pixels"),
    "a float": ("1.0 3", "'1.0' is not a whole number"),
    "a power": ("1e2 3", "'1e2' is not a whole number"),
    "nan": ("nan 3", "'nan' is not a whole number"),
    "semicolons": ("1;3", "'1;3' is not a whole number"),
    "underscores": ("1_0 3", "'1_0' is not a whole number"),
    "digits of another script": ("\u0661 3", "'\u0661' is not a whole number"),
    "beyond 64 bits": ("9223372036854775808 1", "'9223372036854775808' is not a whole number"),
    "1e6 digits": ("9" * LONG + " 1", f"'{'9' * 20}' is not a whole number"),
    "words": ("defect here", "'defect' is not a whole number"),
}
LABEL_FILES |= {f"runs: {what}": (row(f"02.jpg,1,{rle}"), f", row 4: 02.jpg: {said}")
                for what, (rle, said) in RUNS.items()}


@pytest.mark.parametrize("text, said", LABEL_FILES.values(), ids=LABEL_FILES)
def test_label_file(photos, tmp_path, refused, text, said):
    labels = tmp_path / "labels.csv"
    labels.write_bytes(text if isinstance(text, bytes) else text.encode())
    got = refused("train_cls", "--images", photos, "--labels", labels, "--out", tmp_path / "out",
                  "--folds", 3)
    assert got == f"{labels}{said}"


def test_a_class_with_a_name_of_1e6_letters_that_never_occurs(photos, tmp_path, refused):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"ImageId,{'x' * LONG}\n" + "".join(f"{i:02d}.jpg,0\n" for i in range(12)))
    said = refused("train_cls", "--images", photos, "--labels", labels, "--out", tmp_path / "out")
    assert said.startswith(f"{labels}: class xxx") and said.endswith("x ...") and len(said) == 1004


def test_accents_composed_in_another_way(photos, tmp_path, refused):
    (photos / "02.jpg").rename(photos / "ro\u0308hre.jpg")  # as macOS writes it
    labels = tmp_path / "labels.csv"
    labels.write_text(row("r\xf6hre.jpg,1,1 3"), encoding="utf-8")
    assert refused("train_cls", "--images", photos, "--labels", labels, "--out",
                   tmp_path / "out") == \
        f"{labels}, row 4: image 'r\xf6hre.jpg' {ABSENT}, but 'ro\u0308hre.jpg' is"


MASK_FILES = {  # masks that evaluate.py is to compare with the true ones
    "nothing": ("", f": no rows, expected {FORMS}"),
    "labels only": ("ImageId,ClassId\n00.jpg,1\n",
                    ": no masks in it, expected a column EncodedPixels"),
    "no class of the truth": (HEAD + "00.jpg,3,1 3\n", ": classes 3, expected some of 1, 2"),
    "an absent image": (row("99.jpg,1,1 3"), f", row 4: image '99.jpg' {ABSENT}"),
    "masks of a larger size": (row("02.jpg,1,2000 9"),
                               ", row 4: 02.jpg: run '2000 9' ends beyond the image's 40 x 40 pix"),
    "a doubled mask": (row("01.jpg,1,9 3"), ", row 4: 01.jpg 1 stands in row 3 already"),
    "images left out": (HEAD + "00.jpg,1,1 3\n", ": no row for 8 images, the first is 01.jpg; "
                        "--missing empty counts them as empty, --missing skip leaves them out"),
}


@pytest.mark.parametrize("text, said", MASK_FILES.values(), ids=MASK_FILES)
def test_mask_file(photos, tmp_path, refused, text, said):
    labels, made = tmp_path / "labels.csv", tmp_path / "made.csv"
    labels.write_text(HEAD + "\n".join(good_rows()) + "\n")
    made.write_text(text)
    got = refused("evaluate", "--images", photos, "--labels", labels, f"m={made}", "--out",
                  tmp_path / "out")
    assert got.startswith(f"{made}{said}")
