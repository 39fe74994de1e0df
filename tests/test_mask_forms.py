"""Masks in the forms of other tools: written, read back, and refused where they are wrong."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cam2seg import masks
from cam2seg.data import coco, exports
from cam2seg.data.colours import COLOURS, class_colours
from cam2seg.data.drawn import class_of, folder_of, mask_files, owners
from cam2seg.data.errors import DataError
from cam2seg.data.labels import check_masks, read_labels, read_masks
from cam2seg.data.polygons import polygon_mask
from cam2seg.report import exports as forms

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 9))


def bits(draw, size):
    number = draw(st.integers(0, 2 ** (size[0] * size[1]) - 1))
    return np.array([number >> i & 1 for i in range(size[0] * size[1])], bool).reshape(size)


@st.composite
def any_mask(draw):
    return bits(draw, draw(SIZES))


def everyone(names, title):
    return names


# COCO's run lengths


@pytest.mark.parametrize("row, counts", [
    ([0, 0, 1, 1, 1, 0, 1], [2, 3, 1, 1]), ([1, 1, 0], [0, 2, 1]), ([0, 0], [2]), ([1], [0, 1])])
def test_counts_by_hand(row, counts):
    rle = masks.rle_encode(np.array([row]).T)
    assert coco.to_counts(rle, (len(row), 1)) == counts
    assert coco.from_counts(counts) == rle


def test_counts_go_down_the_columns():
    assert coco.to_counts(masks.rle_encode(np.array([[0, 1], [1, 1]])), (2, 2)) == [1, 3]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(any_mask())
def test_run_lengths_go_to_coco_and_back(mask):
    rle = masks.rle_encode(mask)
    counts = coco.to_counts(rle, mask.shape)
    assert sum(counts) == mask.size and sum(counts[1::2]) == mask.sum()
    assert coco.from_counts(counts) == rle
    assert coco.decompress(coco.compress(counts)) == counts


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2 ** 40), max_size=9))
def test_numbers_of_any_size_are_compressed_without_loss(counts):
    assert coco.decompress(coco.compress(counts)) == counts


def test_runs_of_nothing_and_runs_that_touch_are_joined():
    assert coco.from_counts([2, 3, 0, 4, 1, 0, 2]) == "3 7"
    assert coco.from_counts([0, 0, 5]) == coco.from_counts([5]) == coco.from_counts([]) == ""


def test_boxes_and_areas_by_hand(tmp_path):
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:4] = mask[3, 1] = True
    coco.write(tmp_path / "x.json", ["a", "b"], {"a": (5, 6), "b": (1, 1)}, ["pit"],
               {("a", 0): masks.rle_encode(mask)})
    found, = json.loads((tmp_path / "x.json").read_text())["annotations"]
    assert found["bbox"] == [1, 1, 3, 3] and found["area"] == 7 and found["iscrowd"] == 0


# Polygons


def inside(corners, x, y):
    """Whether a point is inside by the crossings of each edge, in a loop."""
    found = False
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if min(y0, y1) <= y < max(y0, y1):
            found ^= x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x
    return found


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.integers(-8, 44).map(lambda n: n / 4)] * 2), min_size=3,
                max_size=7), SIZES)
def test_polygons_equal_the_loop_over_pixel_centres(corners, size):
    mask = polygon_mask(np.array(corners, float), size)
    assert mask.tolist() == [[inside(corners, c + 0.5, r + 0.5) for c in range(size[1])]
                             for r in range(size[0])]


def test_polygons_that_share_an_edge_share_no_pixel():
    left = polygon_mask(np.array([[0, 0], [3, 0], [5, 6], [0, 6]], float), (6, 8))
    right = polygon_mask(np.array([[3, 0], [8, 0], [8, 6], [5, 6]], float), (6, 8))
    assert not (left & right).any() and (left | right).all()


def test_edges_through_pixel_centres_have_their_upper_and_left_ends():
    mask = polygon_mask(np.array([[0.5, 0.5], [2.5, 0.5], [2.5, 1.5], [0.5, 1.5]]), (3, 4))
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 1]]


def test_a_rectangle_of_whole_pixels():
    mask = polygon_mask(np.array([[1, 2], [4, 2], [4, 3], [1, 3]], float), (4, 5))
    assert np.argwhere(mask).tolist() == [[2, 1], [2, 2], [2, 3]]


# Names and colours


def test_each_image_has_a_png_of_its_own():
    names = ["a.jpg", "A.png", "b.jpg", "b.jpg.png", "sub/a.jpg", "c.tar.tif", "d.bmp", "d.gif"]
    files = mask_files(names)
    assert files == {"a.jpg": "a.jpg.png", "A.png": "A.png.png", "b.jpg": "b.png",
                     "b.jpg.png": "b.jpg.png.png", "sub/a.jpg": "sub/a.png",
                     "c.tar.tif": "c.tar.png", "d.bmp": "d.bmp.png", "d.gif": "d.gif.png"}
    assert all(owners(names)[file.lower()] == name for name, file in files.items())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sets(st.text("aA.pngj/", min_size=1, max_size=6).map(
    lambda t: "/".join("x" + part for part in t.split("/")) + ".jpg"), max_size=5).flatmap(
        lambda s: st.just(sorted(s | {name + ".png" for name in list(s)[:2]}))))
def test_no_two_images_share_a_png(names):
    files = mask_files(names)
    assert len(set(files.values())) == len(names)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1))
def test_the_folder_of_a_class_stays_where_it_is_and_says_its_name(name):
    folder = folder_of(name)
    assert class_of(folder) == name
    assert "/" not in folder and "\\" not in folder and not folder.startswith(".")


def test_colours_are_those_of_the_pictures_and_all_different():
    colours = class_colours(999)
    assert tuple(colours[:7]) == COLOURS and class_colours(3) == list(COLOURS[:3])
    assert len(set(colours)) == 999 and (0, 0, 0) not in colours
    assert colours[7:9] == [(64, 0, 0), (192, 0, 0)]  # 8 and 9 of Pascal VOC


# Folders and files


@pytest.fixture
def three(tmp_path):
    """three(overlap, classes): masks of images in folders, of 1 x 9, 5 x 1 and 4 x 6 pixels, one
    of them clean, and of two whose names differ in the ending."""
    def make(overlap=False, classes=("crack", "deep: pit/..")):
        classes = [k for k in classes if not overlap or k]
        sizes = {"a.bmp": (1, 9), "a.png": (5, 1), "sub/b c.jpg": (4, 6), "sub/clean.tif": (3, 3)}
        rng, rles = np.random.default_rng(0), {}
        folder = tmp_path / "photos"
        for name, size in sizes.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
            number = rng.integers(0, len(classes) + 1, size)
            for c in range(len(classes) if "clean" not in name else 0):
                mask = number == c + 1
                if overlap:
                    mask = rng.random(size) < 0.5
                if mask.any():
                    rles[name, c] = masks.rle_encode(mask)
        return exports.Made(folder, sorted(sizes), sizes, classes, rles, mask_files(sorted(sizes)))

    return make


WRITERS = {"png": exports.write_pngs, "cvat": exports.write_cvat, "coco": exports.write_coco}


@pytest.mark.parametrize("form, overlap", [("png", False), ("png", True), ("cvat", False),
                                           ("coco", False), ("coco", True)])
def test_what_is_written_is_read_back(three, tmp_path, form, overlap):
    made = three(overlap, ("crack", "x") if form == "cvat" else ("crack", "deep: pit/.."))
    path = tmp_path / ("out.json" if form == "coco" else "out")
    WRITERS[form](path, made, everyone)
    for read in (read_masks, read_labels):
        found = read(path, made.image_dir)
        assert (found.names, found.classes, found.rles) == (made.names, made.classes, made.rles)
        check_masks(path, found, made.sizes)
    assert {n for n, _ in found.rows} == set(made.names)


def test_forms_of_pngs(three, tmp_path):
    """A palette with the colours of the classes, or black and white where masks share pixels."""
    made = three()
    exports.write_pngs(tmp_path / "one", made, everyone)
    image = Image.open(tmp_path / "one/sub/b c.png")
    drawn = masks.decode_all(made.rles, "sub/b c.jpg", (4, 6), 2)
    assert image.mode == "P" and (np.asarray(image) == drawn[0] + 2 * drawn[1]).all()
    assert image.getpalette()[:9] == [0, 0, 0, *COLOURS[0], *COLOURS[1]]
    assert (tmp_path / "one/classes.txt").read_text() == "crack\ndeep: pit/..\n"
    made = three(overlap=True)
    exports.write_pngs(tmp_path / "two", made, everyone)
    files = sorted(str(p.relative_to(tmp_path / "two")) for p in (tmp_path / "two").rglob("*.png"))
    assert files == sorted(f"{k}/{f}" for k in ("crack", "deep%3A pit%2F.%2E")
                           for f in ("a.bmp.png", "a.png.png", "sub/b c.png", "sub/clean.png"))
    image = Image.open(tmp_path / "two/crack/sub/b c.png")
    drawn = masks.decode_all(made.rles, "sub/b c.jpg", (4, 6), 2)
    assert image.mode == "L" and (np.asarray(image) == 255 * drawn[0]).all()


def test_the_form_of_cvat(three, tmp_path):
    made = three(classes=("crack", "pit"))
    exports.write_cvat(tmp_path / "out", made, everyone)
    assert (tmp_path / "out/labelmap.txt").read_text().splitlines() == [
        "# label:color_rgb:parts:actions", "background:0,0,0::", "crack:230,159,0::",
        "pit:86,180,233::"]
    assert (tmp_path / "out/ImageSets/Segmentation/default.txt").read_text().splitlines() == [
        "a.bmp", "a.png", '"sub/b c"', "sub/clean"]
    image = np.asarray(Image.open(tmp_path / "out/SegmentationClass/sub/b c.png"))
    drawn = masks.decode_all(made.rles, "sub/b c.jpg", (4, 6), 2)
    assert (image[drawn[0]] == COLOURS[0]).all() and (image[drawn[1]] == COLOURS[1]).all()
    assert not image[~drawn.any(axis=0)].any()
    made = three(overlap=True, classes=("crack", "pit"))
    exports.write_cvat(tmp_path / "both", made, everyone)
    found = read_masks(tmp_path / "both", made.image_dir)
    for name in made.names:  # the later class is on top
        first, last = masks.decode_all(made.rles, name, made.sizes[name], 2)
        assert (masks.decode_all(found.rles, name, made.sizes[name], 2)
                == [first & ~last, last]).all()


def test_a_cvat_image_without_a_png_is_clean(three, tmp_path):
    made = three(classes=("crack", "pit"))
    exports.write_cvat(tmp_path / "out", made, everyone)
    for folder in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / f"out/{folder}/sub/b c.png").unlink()
    found = read_masks(tmp_path / "out", made.image_dir)
    assert found.names == made.names
    assert found.rles == {k: v for k, v in made.rles.items() if k[0] != "sub/b c.jpg"}


def test_overlays_show_colours_outlines_and_names(three, tmp_path):
    made = three(overlap=True)
    forms.write_overlays(tmp_path / "out", made, everyone)
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) \
        == ["a.bmp.jpg", "a.png.jpg", "sub/b c.jpg", "sub/clean.jpg"]
    image, mask = np.full((9, 9, 3), 100, np.uint8), np.zeros((1, 9, 9), bool)
    mask[0, 2:7, 2:7] = True
    painted = forms.overlay(image, mask)
    assert (painted[3:6, 3:6] == np.round(0.7 * 100 + 0.3 * np.array(COLOURS[0]))).all()
    ring = mask[0].copy()
    ring[3:6, 3:6] = False
    assert (painted[ring] == COLOURS[0]).all() and (painted[~mask[0]] == 100).all()


def test_a_mask_of_the_whole_image_has_an_outline_along_the_border():
    image = np.full((9, 12, 3), 100, np.uint8)
    painted = forms.overlay(image, np.ones((1, 9, 12), bool))
    assert (painted[1:-1, 1:-1] == np.round(0.7 * 100 + 0.3 * np.array(COLOURS[0]))).all()
    painted[1:-1, 1:-1] = COLOURS[0]
    assert (painted == COLOURS[0]).all()
    half = np.zeros((1, 9, 12), bool)
    half[:, :, :6] = True
    drawn = (forms.overlay(image, half) == COLOURS[0]).all(axis=2)
    assert drawn[:, 0].all() and drawn[:, 5].all() and drawn[0, :6].all() and drawn[8, :6].all()
    assert drawn.sum() == 2 * 9 + 2 * 4


def test_the_legend_of_an_overlay_says_how_large_the_masks_are(monkeypatch):
    said = []
    real = forms.legend
    monkeypatch.setattr(forms, "legend", lambda entries, width: said.append(entries)
                        or real(entries, width))
    image = np.zeros((40, 50, 3), np.uint8)
    picture = forms.with_legend(image, ["a", "b", "c", "d"], [1.0, 0, 0.3749, 0.0005])
    assert [name for name, _ in said[0]] == ["a 100%", "c 37.5%", "d 0.05%"]
    assert [colour for _, colour in said[0]] == [COLOURS[0], COLOURS[2], COLOURS[3]]
    assert picture.height > 40 and (np.array(picture)[:40, :50] == 0).all()
    forms.with_legend(image, ["a"], [0.0])
    assert [name for name, _ in said[1]] == ["no mask"]


# The guesses of the readers


@pytest.fixture
def photo(tmp_path):
    """photo(pixels, mode): a folder of masks with one PNG, m/a.png, for the image of 2 x 3."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "photos/a.jpg")

    def write(image, name="a.png", lines=None):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "m" / name)
        if lines:
            (tmp_path / "m/classes.txt").write_text(lines)
        return tmp_path / "m"

    return write


V = np.array([[0, 1, 0], [2, 0, 1]], np.uint8)
ONE, TWO = "3 1 6 1", "2 1"


def palette(values, colours):
    image = Image.fromarray(values)
    image.putpalette([v for colour in colours for v in colour])
    return image


def painted(values, colours, alpha=None):
    pixels = np.array(colours, np.uint8)[values]
    if alpha is not None:
        pixels = np.dstack([pixels, np.array(alpha, np.uint8)[values]])
    return Image.fromarray(pixels)


OURS = [(0, 0, 0), *COLOURS[:2]]
FOUND = {  # an image of two classes, what it holds
    "values": Image.fromarray(V), "16 bits": Image.fromarray(V.astype(np.uint16)),
    "our palette": palette(V, OURS),
    "another palette": palette(V, [(9, 9, 9), (128, 0, 0), (0, 128, 0)]),
    "an empty palette": palette(V, [(0, 0, 0)] * 3),
    "a palette in another order": palette((V + 1) % 3, [OURS[2], OURS[0], OURS[1]]),
    "our colours": painted(V, OURS),
    "our colours, opaque": painted(V, OURS, (255, 255, 255)),
    "our colours on nothing": painted(V, [(70, 80, 90), *OURS[1:]], (0, 255, 255)),
    "grey in colours": painted(V, [(0,) * 3, (1,) * 3, (2,) * 3])}


@pytest.mark.parametrize("image", FOUND.values(), ids=FOUND)
def test_a_png_by_its_values_or_its_colours(photo, tmp_path, image):
    for lines, given in (("crack\npit\n", None), (None, ["crack", "pit"])):
        (tmp_path / "m/classes.txt").unlink(missing_ok=True)
        found = read_masks(photo(image, lines=lines), tmp_path / "photos", given)
        assert found.classes == ["crack", "pit"] and found.names == ["a.jpg"]
        assert found.rles == {("a.jpg", 0): ONE, ("a.jpg", 1): TWO}


@pytest.mark.parametrize("white", [
    Image.fromarray((V == 1) * np.uint8(255)), Image.fromarray(V == 1),
    painted((V == 1).astype(int), [(0, 0, 0), (255, 255, 255)]),
    Image.fromarray((V == 1).astype(np.uint8))])
def test_black_and_white_is_one_class(photo, tmp_path, white):
    found = read_masks(photo(white), tmp_path / "photos")
    assert found.classes == ["1"] and found.rles == {("a.jpg", 0): ONE}
    found = read_masks(photo(white), tmp_path / "photos", ["crack"])
    assert found.classes == ["crack"] and found.rles == {("a.jpg", 0): ONE}
    (tmp_path / "m/a.png").unlink()
    found = read_masks(photo(white, "pit/a.png"), tmp_path / "photos")
    assert found.classes == ["pit"] and found.rles == {("a.jpg", 0): ONE}


def test_an_image_without_a_png_is_not_labelled(photo, tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "photos/b.jpg")
    assert read_masks(photo(Image.fromarray(V)), tmp_path / "photos").names == ["a.jpg"]


def test_values_without_names_are_ids(photo, tmp_path):
    found = read_masks(photo(Image.fromarray(V)), tmp_path / "photos")
    assert found.classes == ["1", "2"] and found.rles == {("a.jpg", 0): ONE, ("a.jpg", 1): TWO}


REFUSED = {  # what is wrong: image, name of the file, classes.txt, the message after the folder
    "an unknown value": (Image.fromarray(V * 3), "a.png", "crack\npit\n",
                         "/a.png: the value 3, expected 0 to 2 for the classes crack, pit"),
    "white among values": (Image.fromarray(np.where(V > 1, 255, V).astype(np.uint8)), "a.png", None,
                           "/a.png: the value 255, expected 0 to 254"),
    "an unknown colour": (painted(V, [(0, 0, 0), COLOURS[0], (1, 2, 3)]), "a.png", "crack\npit\n",
                          "/a.png: the colour 1,2,3 at row 1, column 0, expected one of 0,0,0; "
                          "230,159,0; 86,180,233"),
    "no such image": (Image.fromarray(V), "b.png", None, "/b.png: no image has this name, expected "
                      "a.png for the image a.jpg"),
    "two for one image": (Image.fromarray(V), "a.jpg.png", None, None),
    "a folder that is no class": (Image.fromarray(V), "dent/a.png", "crack\npit\n",
                                  "/dent/a.png: no image has this name, expected a.png for the "
                                  "image a.jpg"),
    "grey in the folder of a class": (Image.fromarray(V), "pit/a.png", "crack\npit\n",
                                      "/pit/a.png: the value 2, expected 0 and 255 in the folder "
                                      "of a class"),
    "a name twice": (Image.fromarray(V), "a.png", "pit\npit\n", "/classes.txt: expected the name "
                     "of a class in each line, and none twice"),
    "a photograph": (Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40 + 13), "a.png",
                     "crack\n", "/a.png: the value 13, expected 0 to 1 for the classes crack"),
    "a JPEG": (Image.fromarray(V), "a.jpg", None, "/a.jpg: a picture in JPEG, expected a PNG, "
               "which keeps each pixel as it is")}


@pytest.mark.parametrize("image, name, lines, said", REFUSED.values(), ids=REFUSED)
def test_folders_that_are_refused(photo, tmp_path, image, name, lines, said):
    path = photo(image, name, lines)
    if said is None:
        photo(image)
        said = "/a.png: a.jpg has the mask "
    with pytest.raises(DataError) as error:
        read_masks(path, tmp_path / "photos")
    assert str(error.value).startswith(f"{path}{said}")


def test_masks_of_another_size_and_masks_among_the_images(photo, tmp_path):
    path = photo(Image.fromarray(V.T.copy()))
    with pytest.raises(DataError) as error:
        check_masks(path, read_masks(path, tmp_path / "photos"), {"a.jpg": (2, 3)})
    assert str(error.value) == \
        f"{path}/a.png: masks of 3 x 2 pixels, expected 2 x 3 as of the image a.jpg"
    (tmp_path / "photos/m").mkdir()
    with pytest.raises(DataError) as error:
        read_masks(tmp_path / "photos/m", tmp_path / "photos")
    assert "inside the folder of images" in str(error.value)


def test_a_damaged_png_and_a_file_of_another_kind(photo, tmp_path):
    path = photo(Image.fromarray(V))
    (path / "a.png").write_bytes((path / "a.png").read_bytes()[:-30])
    with pytest.raises(DataError) as error:
        read_masks(path, tmp_path / "photos")
    assert str(error.value).startswith(f"{path}/a.png: cannot be read as an image")
    Image.fromarray(V).save(path / "a.png", format="BMP")
    with pytest.raises(DataError) as error:
        read_masks(path, tmp_path / "photos")
    assert str(error.value) == \
        f"{path}/a.png: a picture in BMP, expected a PNG, which keeps each pixel as it is"


def test_images_in_folders_called_like_classes(tmp_path):
    """The same names, masks or images: labels of a folder per class stay labels."""
    for name in ("crack/a.png", "pit/b.png"):
        for top in ("photos", "copy", "masks"):
            (tmp_path / top / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (3, 2), 7 if top != "masks" else 0).save(tmp_path / top / name)
    palette(V, OURS).save(tmp_path / "masks/crack/a.png")
    assert read_labels(tmp_path / "copy", tmp_path / "photos").rles is None
    assert read_labels(tmp_path / "photos", tmp_path / "photos").classes == ["crack", "pit"]
    for read in (read_labels, read_masks):
        found = read(tmp_path / "masks", tmp_path / "photos")
        assert found.names == ["crack/a.png", "pit/b.png"] and found.classes == ["1", "2"]


CVAT = {  # what is wrong: labelmap.txt, the message after the folder
    "no colour": ("crack\n", "/labelmap.txt: 'crack', expected a line as crack:230,159,0::"),
    "a colour beyond 255": ("crack:230,159,256::\n",
                            "/labelmap.txt: 'crack:230,159,256::', expected a line as crack:230,1"),
    "a colour twice": ("crack:9,9,9::\npit:9,9,9::\n", "/labelmap.txt: 'pit:9,9,9::' has the name "
                       "or the colour of another line"),
    "a colour that is not there": ("crack:9,9,9::\n", "/SegmentationClass/a.png: the colour "
                                   "86,180,233 at row 1, column 0, expected one of 0,0,0; 9,9,9")}


@pytest.mark.parametrize("lines, said", CVAT.values(), ids=CVAT)
def test_folders_of_cvat_that_are_refused(photo, tmp_path, lines, said):
    path = photo(painted(V, OURS), "SegmentationClass/a.png")
    (path / "labelmap.txt").write_text(lines)
    with pytest.raises(DataError) as error:
        read_masks(path, tmp_path / "photos")
    assert str(error.value).startswith(f"{path}{said}")


def test_a_list_of_cvat_that_names_no_image(photo, tmp_path):
    path = photo(painted(V, OURS), "SegmentationClass/a.png")
    (path / "labelmap.txt").write_text("crack:230,159,0::\npit:86,180,233::\n")
    (path / "ImageSets/Segmentation").mkdir(parents=True)
    (path / "ImageSets/Segmentation/default.txt").write_text("a\n../b\n")
    with pytest.raises(DataError) as error:
        read_masks(path, tmp_path / "photos")
    assert str(error.value).startswith(
        f"{path}/ImageSets/Segmentation/default.txt, '../b': no image has this name")


def test_classes_that_cvat_cannot_name():
    exports.check(["png", "coco"], ["a:b", "#c", "Background"])
    for name in ("a:b", "#c", "Background"):
        with pytest.raises(DataError):
            exports.check(["cvat"], [name])


# COCO files


def document(**changes):
    found = {"images": [{"id": 7, "file_name": "a.jpg", "height": 2, "width": 3}],
             "categories": [{"id": 5, "name": "pit"}, {"id": 4, "name": "crack"}],
             "annotations": [{"image_id": 7, "category_id": 5,
                              "segmentation": {"size": [2, 3], "counts": [1, 2, 3]}}]}
    for key, value in changes.items():
        if key in ("segmentation", "image_id", "category_id"):
            found["annotations"][0][key] = value
        elif key in ("file_name", "height", "width"):
            found["images"][0][key] = value
        else:
            found[key] = value
    return found


@pytest.fixture
def read_json(photo, tmp_path):
    def read(content, **more):
        path = tmp_path / "x.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path, read_masks(path, tmp_path / "photos", **more)
    return read


@pytest.mark.parametrize("segmentation, rle", [
    ({"size": [2, 3], "counts": [1, 2, 3]}, "2 2"), ({"size": [2, 3], "counts": "123"}, "2 2"),
    ({"size": [2, 3], "counts": [0, 6]}, "1 6"), ({"size": [2, 3], "counts": [6]}, ""),
    ([[0, 0, 2, 0, 2, 1, 0, 1]], "1 1 3 1"),
    ([[0, 0, 1, 0, 1, 1, 0, 1], [1.0, 1.0, 3, 1, 3, 2, 1, 2]], "1 1 4 1 6 1")])
def test_segmentations_that_are_read(read_json, segmentation, rle):
    _, found = read_json(document(segmentation=segmentation))
    assert found.classes == ["crack", "pit"] and found.names == ["a.jpg"]
    assert found.rles == ({("a.jpg", 1): rle} if rle else {}) and found.drawn == {"a.jpg": (2, 3)}


def test_annotations_of_one_class_are_joined_and_images_without_any_are_clean(read_json, photo):
    two = [{"image_id": 7, "category_id": 5, "segmentation": {"size": [2, 3], "counts": c}}
           for c in ([1, 2, 3], [2, 2, 2])]
    assert read_json(document(annotations=two))[1].rles == {("a.jpg", 1): "2 3"}
    found = read_json(document(annotations=[]))[1]
    assert found.names == ["a.jpg"] and found.rles == {} and not found.y.any()


BROKEN = ": cannot be read as COCO JSON ("
COUNTS = ", annotations[0]: counts that do not sum to 2 x 3 pixels"
POLYGON = (", annotations[0]: a polygon that is no list of three or more pairs of finite numbers "
           "up to 1000000")
JSON = {  # what is wrong: content, the message after the file
    "nothing": ("", f"{BROKEN}Expecting value: line 1 column 1 (char 0))"),
    "half of it": (json.dumps(document())[:90], BROKEN),
    "deep nesting": ("[" * 100000, BROKEN), "nan": ('{"images": [NaN]}', f"{BROKEN}NaN, expected "
                                                   "finite numbers)"),
    "a number of 5000 digits": ('{"images": ' + "9" * 5000 + "}", BROKEN),
    "a list": ([], ": categories is missing or of another type, expected a list"),
    "no categories": ({"images": [], "annotations": []},
                      ": categories is missing or of another type, expected a list"),
    "images of another kind": (document(images=3), ": images 3, expected a list"),
    "an image of another kind": (document(images=[3]), ", images[0]: file_name is missing"),
    "no height": (document(height=None), ", images[0]: height is missing or of another type"),
    "height true": (document(height=True), ", images[0]: height True, expected a whole number"),
    "height 0": (document(height=0), ", images[0]: 0 x 3 pixels, expected 1 to 178956970"),
    "huge": (document(height=10**6, width=10**6),
             ", images[0]: 1000000 x 1000000 pixels, expected 1 to 178956970"),
    "an image twice": (document(images=document()["images"] * 2),
                       ", images[1]: 'a.jpg' is the name of two images"),
    "an id twice": (document(categories=[{"id": 5, "name": "a"}, {"id": 5, "name": "b"}]),
                    ", categories[1]: the id 5 stands above already"),
    "a name twice": (document(categories=[{"id": 5, "name": "a"}, {"id": 6, "name": "a"}]),
                     ", categories[1]: 'a' is the name of two categories"),
    "a control character": (document(categories=[{"id": 5, "name": "a\n"}]),
                            ": class 'a\n', expected no control character in a name"),
    "no image": (document(file_name="../a.jpg"),
                 ", images[0]: image '../a.jpg' is not in the image folder"),
    "another image": (document(image_id=8),
                      ", annotations[0]: the id 8, which nothing in the file has"),
    "another category": (document(category_id="5"),
                         ", annotations[0]: category_id '5', expected an id of categories"),
    "no segmentation": (document(segmentation=[]),
                        ", annotations[0]: no segmentation, expected run lengths or polygons"),
    "turned": (document(segmentation={"size": [3, 2], "counts": [1, 2, 3]}), ", annotations[0]: "
               "run lengths of another size than the image's 2 x 3"),
    "too few": (document(segmentation={"size": [2, 3], "counts": [1, 2]}), COUNTS),
    "too many": (document(segmentation={"size": [2, 3], "counts": [1, 2, 4]}), COUNTS),
    "negative": (document(segmentation={"size": [2, 3], "counts": [-1, 4, 3]}), COUNTS),
    "floats": (document(segmentation={"size": [2, 3], "counts": [1.0, 2, 3]}), COUNTS),
    "texts": (document(segmentation={"size": [2, 3], "counts": ["1", 2, 3]}), COUNTS),
    "a strange letter": (document(segmentation={"size": [2, 3], "counts": "1\u0661"}), ", annotatio"
                         "ns[0]: '\u0661' in its counts, expected compressed run lengths"),
    "half a number": (document(segmentation={"size": [2, 3], "counts": "1R"}), ", annotations[0]: "
                      "its counts end within a number, expected compressed run lengths"),
    "an endless number": (document(segmentation={"size": [2, 3], "counts": "o" * 99}),
                          ", annotations[0]: 'o' in its counts, expected compressed run lengths"),
    "two corners": (document(segmentation=[[0, 0, 1, 1]]), POLYGON),
    "half a corner": (document(segmentation=[[0, 0, 1, 1, 2, 2, 3]]), POLYGON),
    "an infinite corner": (json.dumps(document(segmentation=[[0, 0, 1, 1, 2, 7]])).replace(
        " 7]", " 1e999]"), POLYGON),
    "a far corner": (document(segmentation=[[0, 0, 1, 1, 2, 1e7]]), POLYGON),
    "corners of another kind": (document(segmentation=[[0, 0, 1, 1, 2, True]]), POLYGON),
    "polygons of another kind": (document(segmentation=[3]), POLYGON)}


@pytest.mark.parametrize("content, said", JSON.values(), ids=JSON)
def test_coco_files_that_are_refused(read_json, tmp_path, content, said):
    with pytest.raises(DataError) as error:
        read_json(content)
    assert str(error.value).startswith(f"{tmp_path}/x.json{said}"), str(error.value)


def test_a_huge_file_is_not_read(read_json, tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "MOST_BYTES", 10)
    with pytest.raises(DataError) as error:
        read_json(document())
    assert str(error.value).startswith(f"{tmp_path}/x.json: a file of more than 10 bytes")


# What a run keeps


def test_what_a_person_has_changed_is_kept(tmp_path):
    def text(what):
        return lambda path: path.write_text(what)

    assert exports.put(tmp_path, "a_coco.json", text("1")) is None
    assert exports.put(tmp_path, "a_coco.json", text("2")) is None
    (tmp_path / "a_coco.json").write_text("mine")
    assert exports.put(tmp_path, "a_coco.json", text("3")) == "a_coco_kept1.json"
    (tmp_path / "a_coco.json").write_text("mine too")
    assert exports.clear(tmp_path) == ["a_coco_kept2.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a_coco_kept1.json", "a_coco_kept2.json"]
    assert (tmp_path / "a_coco_kept1.json").read_text() == "mine"


def test_an_export_is_whole_or_absent_and_follows_no_link(three, tmp_path):
    out, made = tmp_path / "out", three()
    out.mkdir()
    (tmp_path / "else").mkdir()
    (tmp_path / "else/mine.png").touch()
    (out / "m_png").symlink_to(tmp_path / "else")
    (out / "m_png.tmp").symlink_to(tmp_path / "else")

    def broken(path):
        exports.write_pngs(path, made, everyone)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exports.put(out, "m_png", broken)
    assert [p.name for p in out.iterdir()] == ["m_png"] and (out / "m_png").is_symlink()
    exports.put(out, "m_png", lambda path: exports.write_pngs(path, made, everyone))
    assert not (out / "m_png").is_symlink() and (out / "m_png/sub/b c.png").is_file()
    assert [p.name for p in (tmp_path / "else").iterdir()] == ["mine.png"]


@pytest.mark.parametrize("text", ["", "[]", '{"../x": "a"}', "[" * 9999])
def test_a_damaged_record_deletes_nothing(tmp_path, text):
    (tmp_path / "x").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/exports.json").write_text(text)
    assert exports.clear(tmp_path / "run") == [] and (tmp_path / "x").exists()
