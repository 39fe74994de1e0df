"""cam2seg.data: every form of label file, every message, and the folds."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cam2seg.data.csv_files import read_csv, with_usual_names, write_csv
from cam2seg.data.errors import DataError
from cam2seg.data.folds import check_folds, make_folds, most_folds, read_folds
from cam2seg.data.image_folder import list_images
from cam2seg.data.labels import Labels, check_masks, read_labels, write_masks


def table(tmp_path, text, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def picture_files(folder, *names):
    """Files that only have the names of images: reading labels opens none."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def message(call, *args, **kwargs):
    with pytest.raises(DataError) as error:
        call(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


# Forms of a label file

MASKS = "ImageId,ClassId,EncodedPixels\nb.jpg,3,1 2 7 1\na.jpg,1,5 5\nb.jpg,1,2 1\n"


def check_masks_form(labels, classes):
    assert labels.names == ["a.jpg", "b.jpg"]
    assert labels.classes == classes
    assert labels.y.dtype == np.uint8
    assert labels.y.tolist() == [[1, 0], [1, 1]]
    assert labels.rles == {("a.jpg", 0): "5 5", ("b.jpg", 0): "2 1", ("b.jpg", 1): "1 2 7 1"}
    assert labels.rows == {("b.jpg", 1): 2, ("a.jpg", 0): 3, ("b.jpg", 0): 4}


def test_image_class_and_mask_in_three_columns(tmp_path):
    check_masks_form(read_labels(table(tmp_path, MASKS)), ["1", "3"])


@pytest.mark.parametrize("text", [
    "\ufeff" + MASKS,  # byte order mark, as Excel writes it
    MASKS.replace("\n", "\r\n"),
    "\ufeff" + MASKS.replace("\n", "\r\n"),
    MASKS.rstrip("\n"),
    MASKS.replace(",", " , "),
    '"ImageId","ClassId","EncodedPixels"\n"b.jpg","3","1 2 7 1"\n"a.jpg",1,"5 5"\nb.jpg,1,"2 1"\n',
])
def test_byte_order_mark_line_ends_blanks_and_quotes_do_not_matter(tmp_path, text):
    check_masks_form(read_labels(str(table(tmp_path, text))), ["1", "3"])


def test_order_and_number_of_columns_do_not_matter(tmp_path):
    text = ",EncodedPixels,ClassId,note,ImageId\n" \
           "0,1 2 7 1,3,x,b.jpg\n1,5 5,1,,a.jpg\n2,2 1,1,,b.jpg\n"
    check_masks_form(read_labels(table(tmp_path, text)), ["1", "3"])


def test_blank_lines_are_passed_over_and_counted(tmp_path):
    labels = read_labels(table(tmp_path, MASKS.replace("\na.jpg", "\n\n\na.jpg")))
    assert labels.rows == {("b.jpg", 1): 2, ("a.jpg", 0): 5, ("b.jpg", 0): 6}


def test_image_and_class_joined_in_one_column(tmp_path):
    text = "ImageId_ClassId,EncodedPixels\nb.jpg_3,1 2 7 1\na.jpg_1,5 5\nb.jpg_1,2 1\n"
    check_masks_form(read_labels(table(tmp_path, text)), ["1", "3"])


def test_image_and_class_name_joined_in_one_column(tmp_path):
    text = "Image_Label,EncodedPixels\nb.jpg_Sugar,1 2 7 1\na.jpg_Fish,5 5\n" \
           "b.jpg_Fish,2 1\na.jpg_Gravel,\n"
    labels = read_labels(table(tmp_path, text))
    assert (labels.names, labels.classes) == (["a.jpg", "b.jpg"], ["Fish", "Gravel", "Sugar"])
    assert labels.y.tolist() == [[1, 0, 0], [1, 0, 1]]
    assert labels.rles == {("a.jpg", 0): "5 5", ("b.jpg", 0): "2 1", ("b.jpg", 2): "1 2 7 1"}
    assert labels.rows["a.jpg", 1] == 5


@pytest.mark.parametrize("joined, image, label", [
    ("a.jpg_1", "a.jpg", "1"),
    ("a.jpg_deep_scratch", "a.jpg", "deep_scratch"),
    ("line_2_0007.PNG_deep_scratch", "line_2_0007.PNG", "deep_scratch"),
    ("day_1/a_b.tiff_x_y_z", "day_1/a_b.tiff", "x_y_z"),
    ("a.jpg.png_x", "a.jpg.png", "x"),
    ("no_suffix_here_4", "no_suffix_here", "4"),
    ("a.jpg__x", "a.jpg", "_x"),
])
def test_underscores_in_image_and_class_names(tmp_path, joined, image, label):
    labels = read_labels(table(tmp_path, f"Image_Label,EncodedPixels\n{joined},1 1\n"),
                              classes=[label])
    assert (labels.names, labels.classes) == ([image], [label])
    assert labels.rles == {(image, 0): "1 1"}


def test_labels_without_masks(tmp_path):
    text = "ImageId,ClassId\nb.jpg,2\na.jpg,1\nb.jpg,1\nc.jpg,\n"
    labels = read_labels(table(tmp_path, text))
    assert (labels.names, labels.classes) == (["a.jpg", "b.jpg", "c.jpg"], ["1", "2"])
    assert labels.y.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert labels.rles is None
    assert labels.rows == {("b.jpg", 1): 2, ("a.jpg", 0): 3, ("b.jpg", 0): 4, ("c.jpg", None): 5}


def test_one_column_of_0_and_1_per_class_keeps_the_order_of_the_columns(tmp_path):
    text = "ImageId,scratch,pit,crack\nb.jpg,0,1,1\na.jpg,0,0,0\nc.jpg,1,0,0\n"
    labels = read_labels(table(tmp_path, text))
    assert (labels.names, labels.classes) == (["a.jpg", "b.jpg", "c.jpg"],
                                              ["scratch", "pit", "crack"])
    assert labels.y.tolist() == [[0, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert labels.rles is None
    assert labels.rows == {("b.jpg", None): 2, ("b.jpg", 1): 2, ("b.jpg", 2): 2,
                           ("a.jpg", None): 3, ("c.jpg", None): 4, ("c.jpg", 0): 4}


def test_a_class_that_never_occurs_keeps_its_column_of_0(tmp_path):
    labels = read_labels(table(tmp_path, "ImageId,x,y\na.jpg,0,1\nb.jpg,0,0\n"))
    assert labels.classes == ["x", "y"]
    assert labels.y.tolist() == [[0, 1], [0, 0]]


def test_a_folder_per_class_and_clean_for_none(tmp_path):
    picture_files(tmp_path, "pit/b.png", "pit/line 2/a.JPG", "clean/a.png", "crack/a.png",
                  "pit/notes.txt", "loose.png")
    labels = read_labels(tmp_path)
    assert labels.names == ["clean/a.png", "crack/a.png", "pit/b.png", "pit/line 2/a.JPG"]
    assert labels.classes == ["crack", "pit"]
    assert labels.y.tolist() == [[0, 0], [1, 0], [0, 1], [0, 1]]
    assert labels.rles is None


def test_folders_named_by_ids_and_by_fixed_classes(tmp_path):
    picture_files(tmp_path, "3/a.png", "1/b.png")
    labels = read_labels(tmp_path)
    assert (labels.names, labels.classes) == (["1/b.png", "3/a.png"], ["1", "3"])
    assert labels.y.tolist() == [[1, 0], [0, 1]]
    labels = read_labels(tmp_path, classes=["3", "x", "1"])
    assert labels.classes == ["3", "x", "1"]
    assert labels.y.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert message(read_labels, tmp_path, classes=["3"]) == \
        f"{tmp_path}: class '1', expected one of 3; --classes leaves others out"
    picture_files(tmp_path, "0/c.png")
    assert message(read_labels, tmp_path) == \
        f"{tmp_path}: class '0', expected ids from 1 up to 999; an image without any class has " \
        "an empty ClassId"


@pytest.mark.parametrize("ids, classes", [
    (["2", "5"], ["2", "5"]),
    (["1"], ["1"]),
    (["10", "9"], ["9", "10"]),  # as numbers, not as text
])
def test_the_class_ids_that_occur_are_the_classes(tmp_path, ids, classes):
    rows = "".join(f"{c}.jpg,{c}\n" for c in ids)
    labels = read_labels(table(tmp_path, "ImageId,ClassId\n" + rows))
    assert labels.classes == classes
    for name, y in zip(labels.names, labels.y, strict=True):
        assert [classes[c] for c in np.flatnonzero(y)] == [name.removesuffix(".jpg")]


def test_an_empty_mask_of_another_class_says_nothing(tmp_path):
    path = table(tmp_path, MASKS + "a.jpg,7,\n")
    assert read_labels(path).classes == ["1", "3", "7"]
    assert read_labels(path, classes=["3", "1"]).y.tolist() == [[0, 1], [1, 1]]


def test_others_than_the_fixed_classes_can_be_left_out(tmp_path):
    for text in (MASKS, "ImageId,ClassId\nb.jpg,3\na.jpg,1\nb.jpg,1\n",
                 "ImageId,1,3\na.jpg,1,0\nb.jpg,1,1\n"):
        labels = read_labels(table(tmp_path, text), classes=["3"], only=True)
        assert (labels.names, labels.classes) == (["a.jpg", "b.jpg"], ["3"])
        assert labels.y.tolist() == [[0], [1]]


def test_of_classes_finds_them_by_name(tmp_path):
    labels = read_labels(table(tmp_path, MASKS)).of_classes(["3", "7"])
    assert labels.classes == ["3", "7"] and labels.y.tolist() == [[0, 0], [1, 0]]
    assert labels.rles == {("b.jpg", 0): "1 2 7 1"} and labels.rows == {("b.jpg", 0): 2}
    assert read_labels(table(tmp_path, "ImageId,x\na.jpg,1\n")).of_classes(["x"]).rles is None


def test_fixed_classes_give_the_columns(tmp_path):
    path = table(tmp_path, MASKS)
    labels = read_labels(path, classes=["3", "1", "4", "2"])
    assert labels.classes == ["3", "1", "4", "2"]
    assert labels.y.tolist() == [[0, 1, 0, 0], [1, 1, 0, 0]]
    assert labels.rles == {("a.jpg", 1): "5 5", ("b.jpg", 1): "2 1", ("b.jpg", 0): "1 2 7 1"}
    wide = table(tmp_path, "ImageId,x,y\na.jpg,1,0\nb.jpg,0,1\n")
    assert read_labels(wide, classes=["y", "x"]).y.tolist() == [[0, 1], [1, 0]]


@pytest.fixture
def small_limit():
    """The csv module's own limit, which is one for the whole process."""
    before = csv.field_size_limit(131_072)
    yield 131_072
    csv.field_size_limit(before)


def test_run_lengths_longer_than_the_csv_modules_limit(tmp_path, small_limit):
    rle = " ".join(f"{2 * n + 1} 1" for n in range(30_000))
    assert len(rle) > small_limit
    path = table(tmp_path, f"ImageId,ClassId,EncodedPixels\na.jpg,1,{rle}\n")
    assert read_labels(path).rles == {("a.jpg", 0): rle}
    assert csv.field_size_limit() == small_limit
    message(read_labels, table(tmp_path, "ImageId\n"))
    assert csv.field_size_limit() == small_limit


def test_keep_leaves_the_rows_asked_for(tmp_path):
    text = "ImageId,x,y\na.jpg,1,0\nb.jpg,0,1\nc.jpg,1,1\n"
    labels = read_labels(table(tmp_path, text))
    for mask in ([True, False, True], np.array([1, 0, 1])):
        kept = labels.keep(mask)
        assert kept.names == ["a.jpg", "c.jpg"]
        assert kept.y.tolist() == [[1, 0], [1, 1]]
        assert kept.classes == ["x", "y"]
    assert labels.names == ["a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(ValueError):
        labels.keep([True])


# Images that a file does not name

@pytest.fixture
def three(tmp_path):
    return picture_files(tmp_path / "images", "c.jpg", "a.jpg", "b.jpg")


def test_an_image_that_a_mask_file_does_not_name_has_no_defect(tmp_path, three):
    labels = read_labels(table(tmp_path, MASKS), three)  # Kaggle's rule
    assert labels.names == ["a.jpg", "b.jpg", "c.jpg"]
    assert labels.y.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert sorted(labels.rles) == [("a.jpg", 0), ("b.jpg", 0), ("b.jpg", 1)]


def test_an_image_that_a_complete_mask_file_does_not_name_is_left_out(tmp_path, three):
    text = "ImageId,ClassId,EncodedPixels\nb.jpg,1,1 1\nb.jpg,2,\na.jpg,1,\na.jpg,2,\n"
    labels = read_labels(table(tmp_path, text), three)
    assert labels.names == ["a.jpg", "b.jpg"]
    assert labels.classes == ["1", "2"]
    assert labels.y.tolist() == [[0, 0], [1, 0]]
    assert labels.rles == {("b.jpg", 0): "1 1"}


def test_an_image_with_no_class_does_not_make_a_mask_file_complete(tmp_path, three):
    labels = read_labels(table(tmp_path, MASKS + "c.jpg,,\n"), three)
    assert labels.names == ["a.jpg", "b.jpg", "c.jpg"]
    labels = read_labels(table(tmp_path, "ImageId,ClassId,EncodedPixels\na.jpg,1,1 1\n"
                                              "c.jpg,,\n"), three)
    assert labels.names == ["a.jpg", "b.jpg", "c.jpg"]
    assert labels.y.tolist() == [[1], [0], [0]]


@pytest.mark.parametrize("text, y", [
    ("ImageId,ClassId\na.jpg,1\n", 1), ("ImageId,x\na.jpg,1\n", 1), ("ImageId,x\na.jpg,0\n", 0),
])
def test_an_image_that_labels_without_masks_do_not_name_is_left_out(tmp_path, three, text, y):
    labels = read_labels(table(tmp_path, text), three)
    assert labels.names == ["a.jpg"]
    assert labels.y.tolist() == [[y]]


def test_only_the_named_images_count_without_an_image_folder(tmp_path):
    assert read_labels(table(tmp_path, MASKS)).names == ["a.jpg", "b.jpg"]


def test_images_below_a_folder_are_listed_by_sorted_relative_name(tmp_path):
    picture_files(tmp_path, "b.png", "a.jpg", "B.JPEG", "x/c.Tif", "x/y/d.webp", "e.bmp", "f.tiff",
                  "readme.md", "g.gif", "train.csv", "png")
    (tmp_path / "folder.png").mkdir()
    assert list_images(tmp_path) == ["B.JPEG", "a.jpg", "b.png", "e.bmp", "f.tiff", "g.gif",
                                     "x/c.Tif", "x/y/d.webp"]


def test_folders_without_images(tmp_path):
    assert message(list_images, tmp_path / "none") == \
        f"{tmp_path / 'none'}: no such folder, expected one with images"
    path = picture_files(tmp_path / "some", "notes.txt")
    empty = (f"{path}: no image in it, expected files ending in "
             ".bmp .gif .jpeg .jpg .png .tif .tiff .webp")
    assert message(list_images, path) == empty
    assert message(read_labels, path) == empty
    assert message(read_labels, table(tmp_path, MASKS), path) == empty
    picture_files(path, "a.png")
    assert message(read_labels, path) == \
        f"{path}: no image in a subfolder, expected one subfolder per class"
    picture_files(path, "clean/a.png")
    assert message(read_labels, path) == \
        f"{path}: no class in it, expected at least one labelled image"


# What is wrong in a file

HEAD = "ImageId,ClassId,EncodedPixels\n"
FORMS = ("ImageId,ClassId,EncodedPixels | ImageId_ClassId,EncodedPixels | "
         "Image_Label,EncodedPixels | ImageId,ClassId | ImageId and one 0/1 column per class")


@pytest.mark.parametrize("text, expected", [
    ("", f": no rows, expected {FORMS}"),
    ("\n\n", f": no rows, expected {FORMS}"),
    (HEAD, f": no rows, expected {FORMS}"),
    ("ImageId;ClassId\na.jpg;1\n",
     ", row 1: semicolons in ImageId;ClassId, expected commas between the columns"),
    ("ImageId\tClassId\na.jpg\t1\n",
     ", row 1: tabs in ImageId\tClassId, expected commas between the columns"),
    ("ImageId;x,y\na.jpg;1\n", f", row 2: 1 cells, expected 2 (ImageId;x,y)"),
    ("imageid,ImageId\na.jpg,1\n", f", row 1: columns imageid,ImageId; expected {FORMS}"),
    ("name,x\na.jpg,1\n", f", row 1: columns name,x; expected {FORMS}"),
    ("ImageId,EncodedPixels\na.jpg,1 1\n",
     f", row 1: columns ImageId,EncodedPixels; expected {FORMS}"),
    ("ImageId_ClassId\na.jpg_1\n", f", row 1: columns ImageId_ClassId; expected {FORMS}"),
    ("x,ImageId\n1,a.jpg\n", f", row 1: columns x,ImageId; expected {FORMS}"),
    ("ImageId\na.jpg\n", f", row 1: columns ImageId; expected {FORMS}"),
    ("a.JPG,1\nb.jpg,1\n", ", row 1: columns a.JPG,1; expected the names of the columns, "
     + FORMS),
    ("ImageId,ClassId,ClassId\na.jpg,1,2\n",
     ", row 1: a column occurs twice in ImageId,ClassId,ClassId"),
    ("ImageId,x,x \na.jpg,1,1\n", ", row 1: a column occurs twice in ImageId,x,x"),
    (HEAD + "a.jpg,1\n", ", row 2: 2 cells, expected 3 (ImageId,ClassId,EncodedPixels)"),
    (HEAD + "a.jpg,1,1 1\n\nb.jpg,1,1 1,\n",
     ", row 4: 4 cells, expected 3 (ImageId,ClassId,EncodedPixels)"),
    (HEAD + "a.jpg,1,1 1\nb.jpg,1,1 1\na.jpg,1,3 1\n",
     ", row 4: a.jpg 1 stands in row 2 already"),
    ("ImageId_ClassId,EncodedPixels\na.jpg_1,1 1\na.jpg_1,\n",
     ", row 3: a.jpg 1 stands in row 2 already"),
    ("ImageId,ClassId\na.jpg,1\na.jpg,1\n", ", row 3: a.jpg 1 stands in row 2 already"),
    ("ImageId,x\na.jpg,1\nb.jpg,0\nb.jpg,0\n", ", row 4: b.jpg  stands in row 3 already"),
    ("ImageId,x,y\na.jpg,1,0\na.jpg,0,1\n", ", row 3: a.jpg  stands in row 2 already"),
    ("ImageId,ClassId\na.jpg,1\nb.jpg,0\n", ", row 3: class '0', expected ids from 1 up to 999; an "
     "image without any class has an empty ClassId"),
    (HEAD + "a.jpg,-1,1 1\n", ", row 2: class '-1', expected ids from 0 up to 999"),
    (HEAD + "a.jpg,1.5,1 1\n", ", row 2: class '1.5', expected ids from 0 up to 999"),
    (HEAD + "a.jpg,1.0,1 1\n", ", row 2: class '1.0', expected ids from 0 up to 999"),
    (HEAD + "a.jpg,+1,1 1\n", ", row 2: class '+1', expected ids from 0 up to 999"),
    (HEAD + "a.jpg,01,1 1\n", ", row 2: class '01', expected ids from 0 up to 999"),
    (HEAD + "a.jpg,1000,1 1\n", ", row 2: class '1000', expected ids from 0 up to 999"),
    (HEAD + "a.jpg,1,1 1\nb.jpg,pit,1 1\n", ", row 3: class 'pit', expected ids from 0 up to 999"),
    (HEAD + "a.jpg,,1 1\nb.jpg,1,1 1\n", ", row 2: run lengths without a class, expected both"),
    (HEAD + "a.jpg,,\n", ": no class in it, expected at least one labelled image"),
    ("ImageId,x,y\na.jpg,0,1\nb.jpg,1,2\n", ", row 3: '2' in y, expected 0 or 1"),
    ("ImageId,x,y\na.jpg,,1\n", ", row 2: '' in x, expected 0 or 1"),
    ("ImageId,x\na.jpg,1.0\n", ", row 2: '1.0' in x, expected 0 or 1"),
    ("ImageId,x\na.jpg,True\n", ", row 2: 'True' in x, expected 0 or 1"),
    ("ImageId,kind\na.jpg,pit\n", ", row 2: 'pit' in kind, expected 0 or 1; a column of class "
     "names is called ClassId"),
    ("ImageId,x,y\na.jpg,pit,0\n", ", row 2: 'pit' in x, expected 0 or 1"),
    ("Image_Label,EncodedPixels\na.jpg,1 1\n",
     ", row 2: 'a.jpg', expected image and class as a.jpg_1"),
    ("Image_Label,EncodedPixels\na.jpg_,1 1\n",
     ", row 2: 'a.jpg_', expected image and class as a.jpg_1"),
    ("ImageId_ClassId,EncodedPixels\n_1,1 1\n",
     ", row 2: '_1', expected image and class as a.jpg_1"),
])
def test_messages_name_the_file_the_row_and_what_was_expected(tmp_path, text, expected):
    path = table(tmp_path, text)
    assert message(read_labels, path) == f"{path}{expected}"


@pytest.mark.parametrize("text, reason", [
    (MASKS.encode("utf-16"), "'utf-8' codec can't decode byte"),
    ("ImageId,ClassId\nr\u00f6hre.jpg,1\n".encode("latin-1"), "'utf-8' codec can't decode byte"),
    (b'ImageId,ClassId\n"a.jpg,1\n', "unexpected end of data"),
    (b'ImageId,ClassId\n"a"b.jpg,1\n', "',' expected after '\"'"),
])
def test_files_that_are_no_csv_in_utf_8(tmp_path, text, reason):
    path = table(tmp_path, text)
    got = message(read_labels, path)
    assert got.startswith(f"{path}: cannot be read as CSV in UTF-8 ({reason}")


def test_a_label_file_that_is_not_there(tmp_path):
    got = message(read_labels, tmp_path / "none.csv")
    assert got.startswith(f"{tmp_path / 'none.csv'}: cannot be read as CSV in UTF-8 (no such file; "
                          f"{tmp_path} holds nothing)")


def test_other_label_files_come_first_where_one_is_not_there(tmp_path):
    for name in ("AUDIT.md", "labels.csv", ".git", "a.png", "folds.csv"):
        (tmp_path / name).touch()
    assert message(read_labels, tmp_path / "label.csv").endswith(
        f"{tmp_path} holds folds.csv, labels.csv, AUDIT.md, a.png)")


def test_a_class_that_the_fixed_ones_do_not_hold(tmp_path):
    path = table(tmp_path, MASKS)
    assert message(read_labels, path, classes=["1", "2"]) == \
        f"{path}, row 2: class '3', expected one of 1, 2; --classes leaves others out"
    path = table(tmp_path, "ImageId,x,y\na.jpg,1,0\nb.jpg,0,1\n")
    assert message(read_labels, path, classes=["x"]) == \
        f"{path}, row 3: class 'y', expected one of x; --classes leaves others out"


@pytest.mark.parametrize("name, near", [
    ("d.jpg", None), ("../outside.jpg", None), ("x/../a.jpg", "a.jpg"), ("./a.jpg", "a.jpg"),
    ("", None), ("images/a.jpg", "a.jpg"), ("/etc/a.jpg", "a.jpg"), ("images\\b.jpg", "b.jpg"),
    ("a.png", "a.jpg"), ("y.jpg", "x/y.jpg"), ("z/y.jpg", None), ("xa.jpg", None), ("/", None),
    (".jpg", None)])
def test_images_outside_the_folder_are_refused(tmp_path, three, name, near):
    """And the image that is meant, perhaps, is named."""
    picture_files(tmp_path, "outside.jpg")
    picture_files(three, "x/y.jpg")
    path = table(tmp_path, f"{HEAD}a.jpg,1,1 1\n{name},1,1 1\n")
    said = f", but '{near}' is" if near else ""
    assert message(read_labels, path, three) == \
        f"{path}, row 3: image '{name}' is not in the image folder{said}"


@pytest.mark.parametrize("text", ["ImageId,x\na.jpg,1\nb,0\nc,1\n",
                                  f"{HEAD}a.jpg,1,1 1\nb,1,1 1\n",
                                  "Image_Label,EncodedPixels\na.jpg_1,1 1\nb_1,1 1\n"])
def test_the_first_name_without_an_ending_is_said(tmp_path, three, text):
    path = table(tmp_path, text)
    assert message(read_labels, path, three) == (
        f"{path}, row 3: image 'b' is not in the image folder, but 'b.jpg' is; names in the file "
        "have their ending")


@pytest.mark.parametrize("header, usual", [
    ("filename,x,Image", "ImageId,x,Image"), ("IMAGE,x", "ImageId,x"), ("File,x", "ImageId,x"),
    ("image_id,x", "ImageId,x"), ("imageid,classid", "ImageId,ClassId"),
    ("file_name,Class_ID,encodedpixels", "ImageId,ClassId,EncodedPixels"),
    ("ImageId_ClassId,encodedPixels", "ImageId_ClassId,EncodedPixels"),
    ("x,image", None), ("ImageId,classid,ClassId", None), ("ImageId,file,image", None)])
def test_other_names_of_columns(tmp_path, header, usual):
    names, rows = with_usual_names(*read_csv(table(tmp_path, f"{header}\n"
                                                   + ",".join("abc"[:header.count(",") + 1]))))
    assert names == list(rows[0][1]) == (usual or header).split(",")
    assert list(rows[0][1].values()) == list("abc")[:len(names)] and rows[0][0] == 2


def test_labels_with_other_names_of_columns(tmp_path, three):
    found = [read_labels(table(tmp_path, text), three) for text in (
        "ImageId,x\na.jpg,1\nb.jpg,0\n", "filename,x\na.jpg,1\nb.jpg,0\n",
        "imageid,classid\na.jpg,x\nb.jpg,\n")]
    assert all(f.names == ["a.jpg", "b.jpg"] and f.classes == ["x"] and f.y.tolist() == [[1], [0]]
               for f in found)


def test_the_absolute_name_of_an_image_in_the_folder_is_refused(tmp_path, three):
    path = table(tmp_path, f"ImageId,x\n{three / 'a.jpg'},1\n")
    assert message(read_labels, path, three) == \
        f"{path}, row 2: image '{three / 'a.jpg'}' is not in the image folder, but 'a.jpg' is"


# Masks against their images

def test_masks_that_fit_their_images_pass(tmp_path):
    labels = read_labels(table(tmp_path, f"{HEAD}a.jpg,1,1 6\nb.jpg,2,4 1\nc.jpg,1,\n"))
    check_masks("f", labels, {"a.jpg": (2, 3), "b.jpg": (1, 4), "c.jpg": (1, 1)})
    check_masks("f", labels, {"c.jpg": (1, 1)})  # the others do not matter


@pytest.mark.parametrize("rle, size, reason", [
    ("1 7", (2, 3), "run '1 7' ends beyond the image's 2 x 3 pixels"),
    ("7 1", (3, 2), "run '7 1' ends beyond the image's 3 x 2 pixels"),
    ("1 2 3", (2, 3), "3 values, expected start/length pairs"),
    ("1 2 2 1", (2, 3), "run '2 1' starts before the run ahead of it ends"),
    ("x 1", (2, 3), "'x' is not a whole number"),
    ("0 1", (2, 3), "run '0 1': start and length are 1 or more"),
])
def test_the_first_mask_that_does_not_fit_its_image_is_named(tmp_path, rle, size, reason):
    path = table(tmp_path, f"{HEAD}a.jpg,1,1 6\nno_size.jpg,1,9 9\nb.jpg,2,{rle}\nc.jpg,1,9 9\n")
    labels = read_labels(path)
    sizes = {"a.jpg": (2, 3), "b.jpg": size, "c.jpg": (1, 1)}
    assert message(check_masks, path, labels, sizes) == f"{path}, row 4: b.jpg: {reason}"


# Writing

def test_csv_files_are_written_with_plain_line_ends_in_utf_8(tmp_path):
    path = tmp_path / "out.csv"
    write_csv(path, ("ImageId", "x"), iter([("a.jpg", 0.5), ("r\u00f6hre, 2.jpg", 1)]))
    assert path.read_bytes() == 'ImageId,x\na.jpg,0.5\n"röhre, 2.jpg",1\n'.encode()
    write_csv(str(path), ("y",), [(1,)])
    assert path.read_bytes() == b"y\n1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("old", [None, b"ImageId,x\nold.jpg,1\n"])
def test_a_csv_file_is_written_whole_or_not_at_all(tmp_path, old):
    path = tmp_path / "out.csv"
    if old:
        path.write_bytes(old)

    def rows():
        for n in range(5000):  # more than a buffer holds
            assert (path.read_bytes() if path.exists() else None) == old
            yield f"{n}.jpg", 1
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_csv(path, ("ImageId", "x"), rows())
    assert (path.read_bytes() if path.exists() else None) == old
    write_csv(path, ("ImageId", "x"), [("new.jpg", 0)])
    assert path.read_bytes() == b"ImageId,x\nnew.jpg,0\n"


def test_written_masks_list_every_pair_and_are_read_back(tmp_path):
    rles = {("b.jpg", 1): "3 2 9 1", ("a.jpg", 0): "1 1", ("c.jpg", 1): "", ("other", 0): "1 1"}
    path = tmp_path / "masks.csv"
    write_masks(path, ["b.jpg", "a.jpg", "c.jpg"], ["pit", "crack"], rles)
    assert path.read_text() == ("ImageId,ClassId,EncodedPixels\n"
                                "b.jpg,pit,\nb.jpg,crack,3 2 9 1\n"
                                "a.jpg,pit,1 1\na.jpg,crack,\n"
                                "c.jpg,pit,\nc.jpg,crack,\n")
    folder = picture_files(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg", "not_masked.jpg")
    labels = read_labels(path, folder, ["pit", "crack"])
    assert labels.names == ["a.jpg", "b.jpg", "c.jpg"]
    assert labels.y.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert labels.rles == {("a.jpg", 0): "1 1", ("b.jpg", 1): "3 2 9 1"}
    assert read_labels(path).classes == ["pit", "crack"]


# Folds

def one_hot(kinds, C):
    return np.eye(C + 1, dtype=int)[kinds][:, 1:]  # kind 0 is no class


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 7), st.lists(st.integers(0, 3), min_size=7, max_size=90),
       st.integers(0, 99))
def test_images_of_one_class_each_are_shared_out_evenly(folds, kinds, seed):
    y = one_hot(kinds, 3)
    fold = make_folds(y, folds, seed)
    assert fold.shape == (len(y),) and set(fold) <= set(range(folds))
    for part in [*(y.T > 0), np.ones(len(y), bool)]:
        counts = np.bincount(fold[part], minlength=folds)
        assert np.abs(counts - part.sum() / folds).max() <= 1


def severstal_like(n, seed):
    """Four classes with shares of 7, 2, 41 and 6 %, and a few images of two classes."""
    rng = np.random.default_rng(seed)
    return (rng.random((n, 4)) < [0.07, 0.02, 0.41, 0.06]).astype(np.uint8)


@pytest.mark.parametrize("n, folds, seed", [(1000, 5, 0), (1000, 5, 1), (503, 4, 2), (300, 3, 3),
                                            (777, 7, 4), (2000, 10, 5)])
def test_images_of_several_classes_are_shared_out_evenly(n, folds, seed):
    y = severstal_like(n, seed)
    assert (y.sum(axis=1) > 1).sum() > 5
    fold = make_folds(y, folds, seed)
    assert sorted(set(fold)) == list(range(folds))
    for part in y.T > 0:
        assert np.abs(np.bincount(fold[part], minlength=folds) - part.sum() / folds).max() <= 2
    assert np.abs(np.bincount(fold, minlength=folds) - n / folds).max() <= 2


@pytest.mark.parametrize("folds", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_every_fold_gets_an_image_of_a_class_with_as_many_images_as_folds(folds, seed):
    y = severstal_like(200, seed)
    y[:, 1] = 0
    y[np.random.default_rng(seed).choice(200, folds, replace=False), 1] = 1
    fold = make_folds(y, folds, seed)
    assert sorted(fold[y[:, 1] > 0]) == list(range(folds))


def test_a_rare_class_beside_a_common_one_is_shared_out_first():
    y = np.zeros((40, 2), int)
    y[:, 0] = 1  # every image has class 1, four of them class 2 as well
    y[:4, 1] = 1
    for seed in range(10):
        fold = make_folds(y, 4, seed)
        assert sorted(fold[:4]) == [0, 1, 2, 3]
        assert np.bincount(fold).tolist() == [10] * 4


def test_folds_depend_on_the_seed_alone():
    y = severstal_like(300, 0)
    first = make_folds(y, 5, 0)
    np.testing.assert_array_equal(first, make_folds(y, 5))
    np.testing.assert_array_equal(first, make_folds(y.astype(float), 5, 0))
    others = [make_folds(y, 5, seed) for seed in (1, 2)]
    for a, b in ((first, others[0]), (first, others[1]), tuple(others)):
        assert (a != b).mean() > 0.5


def test_images_are_shuffled_before_they_are_shared_out():
    y = np.zeros((100, 1), int)
    y[50:] = 1
    fold = make_folds(y, 5, 0)
    for half in (fold[:50], fold[50:]):
        steps = np.diff(half) % 5
        assert 0.3 < (steps != 1).mean()  # in file order folds would follow one another


def test_folds_do_not_depend_on_the_order_of_the_file(tmp_path):
    rng = np.random.default_rng(0)
    y = severstal_like(120, 3)
    rows = [f"{i:03d}.jpg,{','.join(map(str, labels))}" for i, labels in enumerate(y.tolist())]
    found = []
    for order in (range(120), reversed(range(120)), rng.permutation(120)):
        text = "ImageId,w,x,y,z\n" + "\n".join(rows[i] for i in order)
        labels = read_labels(table(tmp_path, text))
        assert labels.y.tolist() == y.tolist()
        fold = make_folds(labels.y, 5, 1)
        found.append(dict(zip(labels.names, fold.tolist(), strict=True)))
    assert found[0] == found[1] == found[2]


def test_folds_do_not_depend_on_the_order_of_a_mask_file(tmp_path):
    y = severstal_like(80, 4)
    images = picture_files(tmp_path / "images", *(f"{i:03d}.jpg" for i in range(80)))
    rows = [f"{i:03d}.jpg,{c + 1},1 1" for i, c in np.argwhere(y)]
    found = []
    for step in (1, -1):
        labels = read_labels(table(tmp_path, HEAD + "\n".join(rows[::step])), images)
        assert labels.y.tolist() == y.tolist()
        found.append(make_folds(labels.y, 4, 1).tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("y, fold, expected", [
    ([[1, 0], [0, 1], [1, 0], [0, 1]], [0, 0, 1, 1], None),
    ([[1, 0], [1, 0], [0, 0], [0, 0]], [0, 1, 0, 1],
     "f: class y never occurs, expected images of every class (x, y)"),
    ([[1, 0], [0, 1], [1, 0], [0, 0]], [0, 0, 1, 1],
     "f: fold 1 has 0 of 2 images with class y, expected some with and some without"),
    ([[1, 0], [1, 1], [1, 0], [0, 1]], [0, 0, 1, 1],
     "f: fold 0 has 2 of 2 images with class x, expected some with and some without"),
    ([[1, 0], [0, 1], [1, 0], [0, 1]], [0, 0, 0, 0],
     "f: fold 1 has 0 of 0 images with class x, expected some with and some without"),
])
def test_every_fold_must_have_images_with_and_without_each_class(y, fold, expected):
    labels = Labels(list("abcd"), ["x", "y"], np.array(y, np.uint8), None, {})
    if expected is None:
        check_folds("f", labels, np.array(fold), 2)
    else:
        assert message(check_folds, "f", labels, np.array(fold), 2) == expected


@pytest.mark.parametrize("seed", range(8))
def test_as_many_folds_as_the_classes_allow(seed):
    rng = np.random.default_rng(seed)
    y = (rng.random((9 + 3 * seed, 2)) < 0.4).astype(np.uint8)
    y[:4] = [[1, 0], [1, 1], [0, 1], [0, 0]]
    labels = Labels([f"{i}" for i in range(len(y))], ["x", "y"], y, None, {})

    def good(k):
        fold = make_folds(y, k, 0)
        counts = [(fold == j).sum() - y[fold == j].sum(axis=0) for j in range(k)]
        return min(map(min, counts)) > 0 and min(y[fold == j].sum(axis=0).min()
                                                 for j in range(k)) > 0

    for most in (2, 5, 40):
        best = max(k for k in range(2, most + 1) if k <= len(y) and good(k))
        fold = most_folds("f", labels, most, lambda k: make_folds(y, k, 0))
        assert fold.tolist() == make_folds(y, best, 0).tolist() and fold.max() == best - 1


def test_groups_that_stay_together_leave_fewer_folds():
    """Three images have the class, but two of them are copies."""
    y, groups = np.array([[1]] * 3 + [[0]] * 5, np.uint8), [0, 0, 1, 2, 3, 4, 5, 6]
    labels = Labels(list("abcdefgh"), ["x"], y, None, {})
    fold = most_folds("f", labels, 5, lambda k: make_folds(y, k, 0, np.array(groups)))
    assert fold.max() == 1 and len(set(fold[:2].tolist())) == 1
    assert most_folds("f", labels, 5, lambda k: make_folds(y, k, 0)).max() == 2


def test_folds_are_written_and_read_back(tmp_path):
    path = tmp_path / "folds.csv"
    write_csv(path, ("ImageId", "fold"), [("a.jpg", 0), ("x/b.jpg", 12), ("c.jpg", 0)])
    assert read_folds(path) == {"a.jpg": 0, "x/b.jpg": 12, "c.jpg": 0}
    assert read_folds(str(path))["x/b.jpg"] == 12


@pytest.mark.parametrize("text, expected", [
    ("ImageId,Fold\na.jpg,0\n", ", row 1: columns ImageId,Fold; expected ImageId,fold"),
    ("ImageId,fold,x\na.jpg,0,1\n", ", row 1: columns ImageId,fold,x; expected ImageId,fold"),
    ("ImageId,fold\na.jpg,0\na.jpg,1\n", ", row 3: 'a.jpg' in fold '1', "
     "expected each image once and folds counted from 0"),
    ("ImageId,fold\na.jpg,-1\n", ", row 2: 'a.jpg' in fold '-1', "
     "expected each image once and folds counted from 0"),
    ("ImageId,fold\na.jpg,1.0\n", ", row 2: 'a.jpg' in fold '1.0', "
     "expected each image once and folds counted from 0"),
    ("ImageId,fold\na.jpg,\n", ", row 2: 'a.jpg' in fold '', "
     "expected each image once and folds counted from 0"),
    ("ImageId,fold\na.jpg\n", ", row 2: 1 cells, expected 2 (ImageId,fold)"),
])
def test_fold_files_that_are_refused(tmp_path, text, expected):
    path = table(tmp_path, text, "folds.csv")
    assert message(read_folds, path) == f"{path}{expected}"
