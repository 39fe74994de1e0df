"""Maps that are not reused, and folders of runs that are not what they should be."""

import json
import shutil

import numpy as np
import pytest
from conftest import call

from cam2seg.data import stored_maps
from cam2seg.data.csv_files import write_csv
from cam2seg.data.errors import DataError
from cam2seg.data.folds import read_folds

MAPS = ("--target-layer", "features.5", "--workers", 0, "--device", "cpu", "--overwrite")


def stored(change):
    """A maps.npy with other contents."""
    def spoil(out):
        maps = np.load(out / "maps.npy")
        np.save(out / "maps.npy", change(maps))
    return spoil


def put(value, at=(3, 1, 0, 0)):
    def change(maps):
        maps[at] = value
        return maps
    return stored(change)


def npy(content):
    return lambda out: (out / "maps.npy").write_bytes(content)


def cut(out):
    (out / "maps.npy").write_bytes((out / "maps.npy").read_bytes()[:-100])


def as_npz(out):
    with open(out / "maps.npy", "wb") as file:
        np.savez(file, np.zeros(3))


def as_objects(out):
    np.save(out / "maps.npy", np.array([{}] * 48, object), allow_pickle=True)


def index(old, new):
    """maps.csv with some text replaced once."""
    def spoil(out):
        text = (out / "maps.csv").read_text()
        assert old in text
        (out / "maps.csv").write_text(text.replace(old, new, 1))
    return spoil


def probability(text):
    def spoil(out):
        lines = (out / "maps.csv").read_text().splitlines()
        lines[3] = ",".join([*lines[3].split(",")[:5], text])
        (out / "maps.csv").write_text("\n".join(lines) + "\n")
    return spoil


def in_json(name, **values):
    def spoil(out):
        found = json.loads((out / name).read_text())
        found.update(values)
        (out / name).write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return spoil


def without_row(out):
    lines = (out / "maps.csv").read_text().splitlines()
    (out / "maps.csv").write_text("\n".join(lines[:-1]) + "\n")


SHAPE = "expected float16 (48, 2, h, w) by maps.csv"
ROW = "map of maps.csv, row 5, 003.png: expected numbers from 0 to 1"
UNREADABLE = "/maps.npy: cannot be read as maps ("
MAP_FILES = {  # what is wrong: how it is done, how the message goes on after the folder's name
    "no maps.npy": (lambda out: (out / "maps.npy").unlink(), UNREADABLE),
    "0 bytes": (npy(b""), UNREADABLE),
    "text": (npy(b"maps"), UNREADABLE),
    "truncated": (cut, UNREADABLE),
    "pickled objects": (as_objects, UNREADABLE),
    "an npz file": (as_npz, f"/maps.npy: no array of shape (), {SHAPE}"),
    "three axes": (stored(lambda m: m[:, 0]), f"/maps.npy: float16 array of shape (48, 4, 4), "
                   f"{SHAPE}"),
    "a class too few": (stored(lambda m: m[:, :1]), "/maps.npy: float16 array of shape (48, 1, 4, "
                        f"4), {SHAPE}"),
    "an image too few": (stored(lambda m: m[1:]), "/maps.npy: float16 array of shape (47, 2, 4, "
                         f"4), {SHAPE}"),
    "float64": (stored(lambda m: m.astype(float)), "/maps.npy: float64 array of shape (48, 2, 4, "
                f"4), {SHAPE}"),
    "a NaN": (put(np.nan), f"/maps.npy: {ROW}"),
    "an infinity": (put(np.inf), f"/maps.npy: {ROW}"),
    "below 0": (put(-0.5), f"/maps.npy: {ROW}"),
    "above 1": (put(1.5), f"/maps.npy: {ROW}"),
    "no maps.csv": (lambda out: (out / "maps.csv").unlink(),
                    "/maps.csv: cannot be read as CSV in UTF-8 ("),
    "an empty maps.csv": (lambda out: (out / "maps.csv").write_text(""),
                          "/maps.csv: no rows, expected ImageId,fold,H,W and the classes"),
    "no H": (index(",H,", ",height,"),
             "/maps.csv, row 1: expected ImageId,fold,H,W and the classes"),
    "no classes": (lambda out: (out / "maps.csv").write_text("ImageId,fold,H,W\n000.png,0,64,64\n"),
                   "/maps.csv, row 1: expected ImageId,fold,H,W and the classes"),
    "other classes": (index("W,p of 1,p of 2", "W,p of a,p of b"), "/maps.csv, row 1: maps of "
                      "classes a,b, expected 1,2; run without --reuse-maps"),
    "columns of another name": (index("p of 1", "1"), "/maps.csv, row 1: expected ImageId,fold,H,W "
                                "and the classes"),
    "another image": (index("002.png", "902.png"), "/maps.csv, row 4: 902.png,"),
    "a doubled image": (index("002.png", "001.png"), "/maps.csv, row 4: 001.png,"),
    "an image of another size": (index("64,64", "64,32"), "/maps.csv, row 2: 000.png,"),
    "a row too few": (without_row, "/maps.csv: maps of 47 images, expected 48; run without "
                      "--reuse-maps"),
    "no probability": (probability("high"), "/maps.csv, row 4: 'high', expected a probability "
                       "from 0 to 1"),
    "a probability of NaN": (probability("nan"), "/maps.csv, row 4: 'nan', expected a probability"),
    "a probability of 2": (probability("2"), "/maps.csv, row 4: '2', expected a probability"),
    "no args.json": (lambda out: (out / "args.json").unlink(), "/args.json: cannot be read ("),
    "a broken args.json": (lambda out: (out / "args.json").write_text('{"args": '),
                           "/args.json: cannot be read ("),
    "a list for args.json": (lambda out: (out / "args.json").write_text("[]"), "/args.json: no "
                             "args in it, expected a file written by one of the scripts"),
    "an older args.json": (in_json("args.json", args={"method": "gradcam++"}),
                           ": its maps were made with --cls None, not "),
}


@pytest.fixture
def made(runs, tmp_path):
    out = tmp_path / "masks"
    shutil.copytree(runs / "masks", out)
    return out


@pytest.mark.parametrize("spoil, said", MAP_FILES.values(), ids=MAP_FILES)
def test_reused_maps(shapes, runs, made, refused, spoil, said):
    spoil(made)
    got = refused("make_masks", "--data", shapes, "--cls", runs / "cls", *MAPS, "--reuse-maps",
                  "--out", made)
    assert got.startswith(f"{made}{said}")


def test_maps_of_other_folds_are_not_reused(shapes, runs, made, tmp_path, refused):
    """The classifiers were trained anew, with another --seed, in the same folder."""
    folds = read_folds(runs / "cls/folds.csv")
    other = {**folds, "005.png": 1 - folds["005.png"]}
    cls = tmp_path / "cls"
    shutil.copytree(runs / "cls", cls, ignore=shutil.ignore_patterns("epoch*", "last.pt"))
    write_csv(cls / "folds.csv", ("ImageId", "fold"), other.items())
    in_json("args.json", args={**json.loads((made / "args.json").read_text())["args"],
                               "cls": str(cls)})(made)
    assert refused("make_masks", "--data", shapes, "--cls", cls, *MAPS, "--reuse-maps", "--out",
                   made) == (f"{made}/maps.csv, row 7: 005.png,{folds['005.png']},64,64, expected "
                             f"005.png,{other['005.png']},64,64; run without --reuse-maps")


@pytest.mark.parametrize("spoil, said", [
    (put(np.nan), f"/maps.npy: {ROW}"),
    (cut, UNREADABLE),
    (index("W,p of 1,p of 2", "W,p of a,p of b"),
     "/maps.csv, row 1: maps of classes a,b, expected some of 1,2"),
    (in_json("metrics.json", args=None), "/metrics.json: no args in it, expected a file written"),
    (in_json("metrics.json", args={}), "/metrics.json: no --norm in it, expected that of make_m"),
    (lambda out: (out / "metrics.json").unlink(), "/metrics.json: cannot be read ("),
])
def test_maps_that_are_to_be_shown(shapes, made, tmp_path, refused, spoil, said):
    spoil(made)
    got = refused("evaluate", "--data", shapes, f"m={made}/masks.csv", "--out", tmp_path / "out")
    assert got.startswith(f"{made}{said}")
    assert call("evaluate", "--data", shapes, f"m={made}/masks.csv", "--figures", 0, "--out",
                tmp_path / "out") == 0


@pytest.mark.parametrize("script, method", [("make_masks", "gradcam++"), ("make_masks", "contrast"),
                                            ("evaluate", None)])
def test_results_do_not_replace_networks(shapes, runs, tmp_path, refused, script, method):
    cls = tmp_path / "cls"
    shutil.copytree(runs / "cls", cls, ignore=shutil.ignore_patterns("epoch*", "last.pt"))
    more = (f"m={shapes}/train.csv",) if script == "evaluate" else \
        ("--cls", cls, "--workers", 0, "--device", "cpu", "--method", method)
    assert refused(script, "--data", shapes, *more, "--overwrite", "--out", cls) == \
        f"{cls} holds networks: name another --out"


@pytest.mark.parametrize("args, said", [
    (None, "no classes in it"), (["1", "2", "3"], "checkpoints of classes ['1', '2'], but ")])
def test_a_run_of_other_classes(shapes, runs, tmp_path, refused, args, said):
    cls = tmp_path / "cls"
    shutil.copytree(runs / "cls", cls, ignore=shutil.ignore_patterns("epoch*", "last.pt"))
    in_json("args.json", classes=args)(cls)
    got = refused("make_masks", "--images", shapes / "train_images", "--cls", cls, "--device",
                  "cpu", "--out", tmp_path / "out")
    assert got.startswith(f"{cls}") and said in got


def test_search_in_one_fold_alone(shapes, runs, tmp_path, refused):
    cls = tmp_path / "cls"
    shutil.copytree(runs / "cls", cls, ignore=shutil.ignore_patterns("epoch*", "last.pt", "fold1"))
    assert refused("make_masks", "--data", shapes, "--cls", cls, "--search", "--device", "cpu",
                   "--out", tmp_path / "out") == \
        f"{shapes}/train.csv: --search needs true masks in two folds or more"


def test_search_by_labels_that_all_images_have(shapes, runs, tmp_path, refused):
    path = tmp_path / "labels.csv"
    names = sorted(p.name for p in (shapes / "train_images").iterdir())
    path.write_text("ImageId,1,2\n" + "".join(f"{name},1,0\n" for name in names))
    assert refused("make_masks", "--images", shapes / "train_images", "--labels", path, "--cls",
                   runs / "cls", "--search", "labels", "--device", "cpu", "--out",
                   tmp_path / "out") == (
        f"{path}: no class has images with it and images without it, expected one that has both "
        "for --search labels")


@pytest.mark.parametrize("layer, said", [
    ("act2", "no layer 'act2'; some there are: "),
    ("head.1", ""),
])
def test_a_layer_that_gives_no_map(shapes, runs, tmp_path, refused, layer, said):
    assert refused("make_masks", "--data", shapes, "--cls", runs / "cls", "--target-layer", layer,
                   "--device", "cpu", "--out", tmp_path / "out").startswith(
                       f"--target-layer: {said}")


def test_maps_whose_header_numpy_cannot_split_into_words_are_refused(tmp_path):
    (tmp_path / "maps.csv").write_text("ImageId,fold,H,W,p of 1\na.jpg,0,8,8,0.5\n")
    path = tmp_path / "maps.npy"
    np.save(path, np.zeros((1, 1, 2, 2), np.float16))
    path.write_bytes(path.read_bytes().replace(b"}", b" ", 1))
    with pytest.raises(DataError, match=r"maps.npy: cannot be read as maps \("):
        stored_maps.read(tmp_path)
