"""Arbitrary and nearly right input: no exception but the stated one, and what is read is right.

    make fuzz      # 100,000 cases; make test runs 2,000, the same ones each time
"""

import copy
import io
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cam2seg import masks, metrics
from cam2seg.data import stored_maps
from cam2seg.data.csv_files import read_csv, read_probs
from cam2seg.data.errors import DataError
from cam2seg.data.folds import read_folds
from cam2seg.data.images import open_image
from cam2seg.data.labels import read_labels, read_masks, write_masks
from cam2seg.methods import contrast, pixels
from cam2seg.runs import checkpoints, restore
from cam2seg.runs.exits import one_line
from cam2seg.runs.folder import check_same_run, read_run
from cam2seg.training import auto_masks, fitted, label_only, pixel_masks
from cam2seg.training.auto_masks import AutoModel
from cam2seg.training.fit import append_log
from cam2seg.training.label_only import ContrastModel
from cam2seg.training.pixel_masks import PixelModel

CASES = int(os.environ.get("CAM2SEG_FUZZ", 2000))
ran = dict.fromkeys(("CSV", "run lengths", "metrics", "images", "mask files",
                     "files of a run"), 0)


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


@share(0.21)
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


# Files of a run: right ones with parts changed or taken out, and bytes changed

JUNK = [None, True, 0, -1, 1.5, 10**30, 10**400, float("nan"), float("inf"), "", "x", "\x1b[1m",
        "../a", [], {}, [1], [[1, "x"]], {"a": 1}, [None] * 3, "0" * 300]
EDITS = st.lists(st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=5),
                           st.integers(0, len(JUNK) - 1), st.integers(0, 3)), max_size=3)
BYTES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(max_size=4)), max_size=2)


def edited(value, edits):
    """A copy in which parts are replaced by junk or, one time in four, taken out."""
    value = copy.deepcopy(value)
    for picks, junk, action in edits:
        at, parent, key = value, None, None
        for pick in picks:
            keys = list(at) if isinstance(at, dict) else range(len(at)) \
                if isinstance(at, list) else []
            if not keys:
                break
            parent, key = at, list(keys)[pick % len(keys)]
            at = at[key]
        if parent is not None and action:
            parent[key] = copy.deepcopy(JUNK[junk])
        elif parent is not None:
            del parent[key]
    return value


def damaged(content, edits):
    for place, dropped, put in edits:
        at = int(place * len(content))
        content = content[:at] + put + content[at + dropped:]
    return content


# Mask files of other tools

COCO = {"images": [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4},
                   {"id": 2, "file_name": "x/c d.png", "height": 2, "width": 2}],
        "categories": [{"id": 1, "name": "pit"}, {"id": 9, "name": "crack"}],
        "annotations": [
            {"image_id": 1, "category_id": 9, "segmentation": {"size": [3, 4], "counts": [2, 3, 7]}},
            {"image_id": 1, "category_id": 9, "segmentation": {"size": [3, 4], "counts": "327"}},
            {"image_id": 2, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 1.5], [0] * 6]}]}


def checked_masks(path, photos):
    """What is read is of the images, and fits the sizes that it says itself."""
    try:
        found = read_masks(path, photos)
    except DataError as error:
        assert refused(error, path)
        return
    assert set(found.names) <= {"a.jpg", "b.jpg", "x/c d.png"} and found.classes
    assert {n for n, _ in found.rows} == set(found.names)
    for (name, c), rle in found.rles.items():
        assert masks.rle_decode(rle, found.drawn[name]).any()
        assert found.y[found.names.index(name), c]


@share(0.1)
@given(EDITS, BYTES)
def test_coco_json(folder, edits, changes):
    ran["mask files"] += 1
    path = folder / "coco.json"
    path.write_bytes(damaged(json.dumps(edited(COCO, edits)).encode(), changes))
    checked_masks(path, folder / "photos")


@share(0.03)
@given(BYTES, BYTES, BYTES, st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_folders_of_masks(folder, of_text, of_list, of_png, cvat):
    ran["mask files"] += 1
    path = folder / ("cvat" if cvat else "pngs")
    file, text = io.BytesIO(), b"# label\ncrack:230,159,0::\nbackground:0,0,0::\n"
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[1] = 230, 159, 0
    Image.fromarray(pixels).save(file, "PNG")
    for name, content, changes in (
            ("labelmap.txt" if cvat else "classes.txt", text if cvat else b"pit\ncrack", of_text),
            ("ImageSets/Segmentation/default.txt", b'a\n"x/c d"\nb', of_list),
            ("SegmentationClass/a.png" if cvat else "a.png", file.getvalue(), of_png)):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(damaged(content, changes))
    checked_masks(path, folder / "photos")


def toy(num_classes, weights="none"):
    return torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, num_classes))


def of_adam(model):
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    adam.step()
    return adam, torch.optim.lr_scheduler.ReduceLROnPlateau(adam, patience=3)


META = {"kind": "toy", "model_args": {"num_classes": 2}, "preprocess": {
    "size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "classes": ["crack", "pit"]}}
MODEL = toy(2)
ADAM, PLATEAU = of_adam(MODEL)
LAST = {"format": 1, "model": MODEL.state_dict(), **META, "optimizer": ADAM.state_dict(),
        "scheduler": PLATEAU.state_dict(), "best": [{"epoch": 1, "val_loss": 0.5}],
        "epochs_done": 1, "args": {"seed": 0}, "partial_epoch": [
            {"sizes": [2, 1], "losses": torch.ones(2), "rng": torch.ones(4, dtype=torch.uint8)}]}


@share(0.02)
@given(EDITS, BYTES)
def test_checkpoints(folder, edits, changes):
    """What check_checkpoints lets pass, a resumed training can take up."""
    ran["files of a run"] += 1
    out, file = folder / "run/fold0", io.BytesIO()
    out.mkdir(parents=True, exist_ok=True)
    torch.save({"format": 1, "model": MODEL.state_dict(), **META}, out / "epoch1.pt")
    torch.save(edited(dict(LAST), edits), file)
    (out / "last.pt").write_bytes(damaged(file.getvalue(), changes))
    try:
        restore.check_checkpoints(folder / "run", [0], "oof.csv", toy, META, 3)
        model = toy(2)
        best, done, partial = checkpoints.load_training_state(out / "last.pt", "toy", model,
                                                              *of_adam(model))
    except checkpoints.CheckpointError as error:
        assert refused(error, out)
        return
    assert all(p.isfinite().all() for p in model.parameters()) and 0 <= done <= 3
    assert all(np.isfinite(b["val_loss"]) for b in best) and (best or partial)


ARGS = {"args": {"seed": 0, "labels": "a.csv"}, "classes": ["crack", "pit"],
        "sha256": {"a.csv": "ab", "the list of images": "cd"}, "versions": {"torch": "2"}}


@share(0.02)
@given(EDITS, BYTES)
def test_flags_of_a_run(folder, edits, changes):
    ran["files of a run"] += 1
    path = folder / "args.json"
    path.write_bytes(damaged(json.dumps(edited(ARGS, edits)).encode(), changes))
    try:
        found = read_run(path, sha256=dict)
        assert found["classes"] and all(isinstance(k, str) for k in found["classes"])
        check_same_run(path, ARGS)
    except DataError as error:
        assert one_line(error).isprintable() and str(path) in str(error)


@share(0.02)
@given(st.one_of(st.binary(max_size=80),
                 st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace"))),
       st.integers(1, 4))
def test_logs(folder, content, epoch):
    """The lines of earlier epochs stay as they are, whatever they say."""
    ran["files of a run"] += 1
    out = folder / "logged/fold0"
    out.mkdir(parents=True, exist_ok=True)
    for name in ("last.pt", "epoch1.pt"):
        if not (out / name).exists():
            torch.save(LAST, out / name)
    path = out / "log.jsonl"
    path.write_bytes(content)
    try:
        restore.check_checkpoints(folder / "logged", [0], "oof.csv", toy, META, 3)
    except checkpoints.CheckpointError as error:
        assert refused(error, path)
        return
    before = path.read_text(encoding="utf-8").splitlines()[:epoch - 1]
    append_log(path, {"epoch": epoch})
    assert path.read_text(encoding="utf-8").splitlines() == [*before, json.dumps({"epoch": epoch})]


C, F, D, WIDTH = 2, len(contrast.FILTERS), pixels.DESCRIPTORS, pixels.WIDTH
ALONE = ContrastModel([contrast.FILTERS[0], None], [1, -1], np.zeros((C, F, 2)),
                      [np.ones(3), np.array([])], None)
NETWORK = pixels.Network(torch.ones(D), [torch.ones(D, WIDTH), torch.ones(WIDTH, WIDTH),
                                         torch.ones(WIDTH, C)],
                         [torch.zeros(WIDTH), torch.zeros(WIDTH), torch.zeros(C)])
PIXELS = PixelModel(ALONE, {0: NETWORK}, [0.1, 0.2], [0.3, 0.4], ["contrast", "network"])
AUTO = AutoModel(PIXELS, [(contrast.FILTERS[1], 1)] * C, [0.1, 0.2], [0.9, None], [None, [0.5, 0.7]],
                 ["network", "product"])
CHOOSERS = {"contrast": (ALONE, label_only.masks_of_image, ()),
            "pixels": (PIXELS, pixel_masks.masks_of_image, (3,)),
            "auto": (AUTO, auto_masks.masks_of_image, (3,))}


@share(0.02)
@given(st.sampled_from([*CHOOSERS]), EDITS, BYTES)
def test_fitted_models(folder, method, edits, changes):
    """Masks can be made with whatever is read as a model."""
    ran["files of a run"] += 1
    model, masks_of_image, fold = CHOOSERS[method]
    fitted.write(folder, ["1", "pit"], model)
    path = folder / fitted.FILE
    value = edited(json.loads(path.read_text()), edits)
    path.write_bytes(damaged(json.dumps(value).encode(), changes))
    try:
        found = fitted.read(folder, method, ["1", "pit"])
    except DataError as error:
        assert refused(error, path)
        return
    x = torch.linspace(-5, 0, 384).reshape(16, 24) ** 2
    maps = [np.ones((C, 16, 24), np.float32)] * (method == "auto")
    for made in masks_of_image(x, *maps, np.ones(C, bool), *fold, found):
        assert made.shape == (C, 16, 24) and made.dtype == bool


@share(0.02)
@given(st.one_of(CONTENT, st.just(b"ImageId,fold,H,W,p of 1\na.jpg,0,8,8,0.5\nb.jpg,0,8,8,1\n")),
       st.sampled_from([np.float16, np.float16, np.float32, np.int8, "S1"]),
       st.lists(st.integers(0, 3), max_size=5), BYTES, st.sampled_from([0, 1, 2, float("nan")]))
def test_stored_maps(folder, index, kind, shape, changes, value):
    ran["files of a run"] += 1
    out, file = folder / "maps", io.BytesIO()
    out.mkdir(exist_ok=True)
    shape = shape if len(shape) != 3 else (2, 1, *shape[1:])
    with np.errstate(all="ignore"):
        np.save(file, np.full(shape, np.float16(value)).astype(kind))
    (out / "maps.npy").write_bytes(damaged(file.getvalue(), changes))
    (out / "maps.csv").write_bytes(index)
    try:
        names, classes, probs, maps = stored_maps.read(out)
        stored_maps.check_index(out, names, np.zeros(len(names), int),
                                dict.fromkeys(names, (8, 8)))
    except DataError as error:
        assert refused(error, out)
        return
    assert maps.shape[:2] == probs.shape == (len(names), len(classes))
    assert ((maps >= 0) & (maps <= 1)).all()
