"""Arbitrary and nearly right input: no exception but the stated one, and what is read is right.

    make fuzz      # 100,000 cases; make test runs 2,000, the same ones each time
"""

import io
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cam2seg import masks, metrics
from cam2seg.data.csv_files import read_csv, read_probs
from cam2seg.data.errors import DataError
from cam2seg.data.folds import read_folds
from cam2seg.data.images import open_image
from cam2seg.data.labels import read_labels, write_masks
from cam2seg.runs.exits import one_line

CASES = int(os.environ.get("CAM2SEG_FUZZ", 2000))
ran = {"CSV": 0, "run lengths": 0, "metrics": 0, "images": 0}


def share(part):
    """Hypothesis's settings for a part of all cases."""
    return settings(max_examples=round(CASES * part), deadline=None, database=None,
                    derandomize="CAM2SEG_FUZZ" not in os.environ,
                    suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def summary():
    yield
    print(f"\n{sum(ran.values())} cases: " + ", ".join(f"{n} {what}" for what, n in ran.items()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three files with names of images, and room for another file."""
    top = tmp_path_factory.mktemp("fuzz")
    for name in ("a.jpg", "b.jpg", "x/c d.png"):
        (top / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (top / "photos" / name).touch()
    return top


def refused(error, path):
    """Whether an error is one printable line that names the file."""
    line = one_line(error)
    return line.isprintable() and line.startswith(str(path)[:900]) and len(line) <= 1004


# CSV files

NAMES = ["a.jpg", "b.jpg", "x/c d.png", "A.jpg", "../a.jpg", "/a.jpg", "a.jpg_1", "b.jpg_pit",
         "x/c d.png_2", "_1", "", '"a.jpg"', '"b\n.jpg"']
CLASSES = ["1", "2", "3", "0", "-1", "1.5", "pit", "deep_scratch", "", "1000", "nan", "01"]
RUNS = ["", "1 3", "1 3 9", "5 2 9 1", "0 1", "1.0 3", "9 2 1 1", "x", "0.5", "1"]
HEADERS = ["ImageId,ClassId,EncodedPixels", "ImageId_ClassId,EncodedPixels", "ImageId,ClassId",
           "Image_Label,EncodedPixels", "ImageId,pit,crack", "ImageId,fold", "ImageId,1,2",
           "note,ImageId,ClassId,EncodedPixels", "ImageId,a,a", "ImageId;ClassId", "", '"ImageId'
           '",ClassId', 'ImageId,"a\rb","c\nd"']
CELLS = st.one_of(st.sampled_from(NAMES), st.sampled_from(CLASSES), st.sampled_from(RUNS),
                  st.text(max_size=6))


@st.composite
def csv_files(draw):
    """A header of some form and rows that mostly have as many cells."""
    header = draw(st.sampled_from(HEADERS))
    columns = header.count(",") + 1
    kinds = [st.sampled_from(NAMES), st.sampled_from(CLASSES), st.sampled_from(RUNS)]
    lines = [header]
    for _ in range(draw(st.integers(0, 5))):
        cells = [draw(kinds[min(i, 2)]) for i in range(columns)]
        if draw(st.integers(0, 9)) == 0:
            cells.insert(draw(st.integers(0, columns)), draw(CELLS))
        if draw(st.integers(0, 4)) == 0:
            cells[draw(st.integers(0, len(cells) - 1))] = draw(CELLS)
        lines.append(",".join(cells))
    text = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\r"])).join(lines)
    content = (draw(st.sampled_from(["", "", "\ufeff"])) + text).encode("utf-8", "replace")
    if draw(st.integers(0, 7)) == 0:
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=3)) + content[at + 1:]
    return content


CONTENT = st.one_of(csv_files(), csv_files(), csv_files(), st.binary(max_size=60),
                    st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")))


@share(0.35)
@given(content=CONTENT, with_images=st.booleans())
def test_labels(folder, content, with_images):
    ran["CSV"] += 1
    path, photos = folder / "labels.csv", folder / "photos" if with_images else None
    path.write_bytes(content)
    try:
        labels = read_labels(path, photos)
    except DataError as error:
        assert refused(error, path)
        return
    assert labels.names == sorted(set(labels.names)) and len(set(labels.classes)) > 0
    assert labels.y.shape == (len(labels.names), len(labels.classes)) and labels.y.max() <= 1
    assert not with_images or set(labels.names) <= {"a.jpg", "b.jpg", "x/c d.png"}
    if labels.rles is not None:
        kept = {(labels.names[i], c) for i, c in np.argwhere(labels.y)}
        assert kept == set(labels.rles) and all(labels.rles.values())
    if with_images:
        rles = labels.rles or {(labels.names[0], 0): "1 3"}
        write_masks(folder / "again.csv", labels.names, labels.classes, rles)
        again = read_labels(folder / "again.csv", photos, labels.classes)
        assert again.rles == rles and set(again.names) >= set(labels.names)


@share(0.1)
@given(content=CONTENT)
def test_tables(folder, content):
    ran["CSV"] += 1
    path = folder / "table.csv"
    path.write_bytes(content)
    for read in (read_csv, read_folds, lambda p: read_probs(p, ["1", "2"])):
        try:
            found = read(path)
        except DataError as error:
            assert refused(error, path)
            continue
        assert found
        if read is read_folds:
            assert all(isinstance(k, int) and k >= 0 for k in found.values())
        elif read is not read_csv:
            assert all(len(p) == 2 and 0 <= min(p) <= max(p) <= 1 for p in found.values())


# Run lengths

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
NUMBERS = st.one_of(st.integers(1, 85), st.integers(-2, 3), st.integers(-10**30, 10**30),
                    st.sampled_from(["1.0", "+1", "1_0", "x", "\u0661", "1e1", "nan"]))


@st.composite
def near_runs(draw):
    """Runs in order, sometimes with a number changed, taken out or put in."""
    values, at = [], 1
    for _ in range(draw(st.integers(0, 6))):
        at += draw(st.integers(0, 4))
        values += [at, draw(st.integers(1, 9))]
        at += values[-1]
    if values and draw(st.integers(0, 2)) == 0:
        i = draw(st.integers(0, len(values) - 1))
        values[i:i + draw(st.integers(0, 1))] = draw(st.lists(NUMBERS, max_size=2))
    return draw(st.sampled_from([" ", " ", "  ", "\t", "\n"])).join(map(str, values))


@share(0.25)
@given(st.one_of(near_runs(), near_runs(), near_runs(), st.text(max_size=20),
                 st.text("0123456789 -", max_size=20)), SIZES)
def test_run_lengths(rle, size):
    ran["run lengths"] += 1
    try:
        mask = masks.rle_decode(rle, size)
    except ValueError as error:
        assert type(error) is ValueError and len(one_line(error)) < 200
        return
    values = list(map(int, rle.split()))
    assert mask.shape == size and mask.sum() == sum(values[1::2])
    pixels = mask.T.ravel()
    for start, length in zip(values[::2], values[1::2], strict=True):
        assert pixels[start - 1:start - 1 + length].all()
    canonical = masks.rle_encode(mask)
    runs = np.array(canonical.split(), int).reshape(-1, 2)
    assert (runs[1:, 0] > runs[:-1].sum(axis=1)).all()  # a gap after each run
    assert masks.rle_encode(masks.rle_decode(canonical, size)) == canonical


@share(0.1)
@given(SIZES, st.data())
def test_masks(size, draw):
    ran["run lengths"] += 1
    bits = draw.draw(st.integers(0, 2 ** (size[0] * size[1]) - 1))
    mask = np.array([bits >> i & 1 for i in range(size[0] * size[1])], bool).reshape(size)
    assert (masks.rle_decode(masks.rle_encode(mask), size) == mask).all()


# Metrics

COUNTS = st.tuples(st.integers(0, 5), st.integers(1, 3)).flatmap(lambda shape: st.lists(
    st.lists(st.tuples(*[st.integers(0, 3) | st.integers(0, 10**9)] * 3), min_size=shape[1],
             max_size=shape[1]), min_size=shape[0], max_size=shape[0]).map(
                 lambda n: np.array(n, np.int64).reshape(*shape, 3)))


@share(0.08)
@pytest.mark.filterwarnings("error")
@given(COUNTS, st.sampled_from([0.0, 1.0]))
def test_scores(counts, empty):
    """inter + only true and inter + only predicted: any three counts make sense."""
    ran["metrics"] += 1
    inter, true, pred = counts[..., 0], counts[..., :2].sum(-1), counts[..., [0, 2]].sum(-1)
    found = metrics.mask_scores(inter, true, pred, empty)
    assert set(found) == set(metrics.SCORES)
    for per_class, mean in found.values():
        assert len(per_class) == counts.shape[1]
        known = [v for v in (*per_class, mean) if v is not None]
        assert all(0 <= v <= 1 for v in known)
    if not (true + pred == 0).any():
        dice = [2 * i / (t + p) for i, t, p in zip(*(n.ravel().tolist() for n in (inter, true,
                                                                                  pred)))]
        assert found["dice_pairs"][1] == (pytest.approx(sum(dice) / len(dice)) if dice else None)


@share(0.09)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.5, 1.0]) | st.floats()),
                max_size=8), st.integers(0, 9))
def test_roc_auc(pairs, longer):
    ran["metrics"] += 1
    y, p = [a for a, _ in pairs] + [1] * (longer == 9), [b for _, b in pairs]
    try:
        area = metrics.roc_auc(y, p)
    except ValueError as error:
        assert type(error) is ValueError
        assert len(y) != len(p) or len(set(y)) < 2 or not np.isfinite(p).all()
        return
    won = [(a > b) + (a == b) / 2 for a, i in zip(p, y, strict=True) if i
           for b, j in zip(p, y, strict=True) if not j]
    assert area == pytest.approx(sum(won) / len(won))


# Images

def written(form, mode, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).convert(mode).save(file, form, exif=exif, **options)
    return file.getvalue()


FILES = [written("PNG", m) for m in ("RGB", "L", "P", "LA", "1")] + [
    written("JPEG", "RGB"), written("JPEG", "CMYK"), written("BMP", "P"), written("TIFF", "RGB"),
    written("GIF", "P"), written("WEBP", "RGBA")]


@share(0.03)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2),
                                                  st.binary(max_size=3)), max_size=4))
@pytest.mark.filterwarnings("ignore")
def test_damaged_images(folder, content, edits):
    ran["images"] += 1
    for place, dropped, put in edits:
        at = int(place ** 2 * len(content))  # rather in the head
        content = content[:at] + put + content[at + dropped:]
    path = folder / "image.png"
    path.write_bytes(content)
    try:
        pixels = open_image(path)
    except DataError as error:
        assert refused(error, path)
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
