"""cam2seg.load: what embedders get, against the files that the scripts write."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, contents
from PIL import Image

import cam2seg
from cam2seg import cam, masks
from cam2seg.data.csv_files import read_csv
from cam2seg.data.folds import read_folds
from cam2seg.data.labels import read_labels


def test_a_classifier_gives_the_masks_that_make_masks_writes(runs, shapes, tmp_path):
    out = tmp_path / "masks"
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", out, "--workers",
                0, "--device", "cpu") == 0
    predict = cam2seg.load(runs / "cls", "cpu")
    fold = read_folds(runs / "cls/folds.csv")
    written = read_labels(out / "masks.csv")
    _, rows = read_csv(out / "maps.csv")
    probs = {r["ImageId"]: [float(r[f"p of {c}"]) for c in predict.classes] for _, r in rows}
    for name in written.names[:6]:
        found = predict(shapes / "train_images" / name, fold=fold[name])
        np.testing.assert_allclose(found.probabilities, probs[name], atol=1e-5)
        for c in range(2):
            true = masks.rle_decode(written.rles.get((name, c), ""), found.masks.shape[1:])
            # Half precision on disk and another batch move a few pixels at the threshold.
            assert (found.masks[c] != true).mean() < 0.01, name


def test_a_unet_gives_the_masks_that_train_seg_writes(runs, shapes):
    predict = cam2seg.load(runs / "seg", "cpu")
    assert predict.kind == "unet" and predict.size == (64, 64)
    fold = read_folds(runs / "cls/folds.csv")
    written = read_labels(runs / "seg/oof_masks.csv")
    for name in written.names[:4]:
        found = predict(shapes / "train_images" / name, fold=fold[name])
        assert found.probabilities.shape == found.masks.shape == (2, 64, 64)
        for c in range(2):
            true = masks.rle_decode(written.rles.get((name, c), ""), (64, 64))
            assert (found.masks[c] != true).mean() < 0.01, name


def test_without_a_fold_the_members_are_averaged(runs, shapes):
    predict = cam2seg.load(runs / "seg", "cpu")
    image = shapes / "train_images/001.png"
    each = [predict(image, fold=k).probabilities for k in predict.nets]
    np.testing.assert_allclose(predict(image).probabilities, np.mean(each, axis=0), atol=1e-6)


@pytest.mark.parametrize("run", ["cls", "seg"])
def test_paths_arrays_and_pillow_images_are_one(runs, shapes, run):
    predict = cam2seg.load(str(runs / run), "cpu")
    path = shapes / "train_images/003.png"
    grey = np.asarray(Image.open(path))
    forms = [path, str(path), Image.open(path), grey, np.repeat(grey[:, :, None], 3, 2)]
    results = predict(forms)
    assert isinstance(results, list) and len(results) == 5
    for found in (*results, predict(grey)):
        assert np.array_equal(found.probabilities, results[0].probabilities)
        assert np.array_equal(found.masks, results[0].masks)
        assert found.classes == predict.classes == ["1", "2"]


def test_masks_have_the_images_own_size(runs):
    wide = np.full((50, 90), 128, np.uint8)
    for run in ("cls", "seg"):
        assert cam2seg.load(runs / run, "cpu")(wide).masks.shape == (2, 50, 90)


def test_maps_are_those_of_the_formulas(runs, shapes):
    predict = cam2seg.load(runs / "cls", "cpu")
    path = shapes / "train_images/005.png"
    found = predict.maps(path, method="gradcam", target_layer="features.5", aug_smooth=False,
                         fold=1)
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))[None]
    pre = predict.preprocess
    x = (pixels.permute(0, 3, 1, 2).float() / 255 - torch.tensor(pre["mean"]).view(3, 1, 1)) \
        / torch.tensor(pre["std"]).view(3, 1, 1)
    maps, _ = cam.class_maps(predict.nets[1], x, "features.5", "gradcam")
    expected = cam.image_maps(maps, (64, 64))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_threads_get_what_one_thread_gets(runs, shapes):
    predict = cam2seg.load(runs / "cls", "cpu")
    paths = [shapes / f"train_images/{i:03d}.png" for i in range(6)]
    alone = [predict(p) for p in paths]
    results = [None] * 6

    def work(i):
        results[i] = predict(paths[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for a, b in zip(alone, results, strict=True):
        assert np.array_equal(a.masks, b.masks)
        assert np.array_equal(a.probabilities, b.probabilities)


def test_a_run_stays_as_it_was_and_nothing_is_printed(runs, shapes, capsys):
    before = contents(runs / "cls")
    cam2seg.load(runs / "cls", "cpu")(shapes / "train_images/000.png")
    assert contents(runs / "cls") == before
    assert capsys.readouterr() == ("", "")


def test_errors_have_one_base_and_say_what_is_wrong(runs, tmp_path):
    for error in (cam2seg.DataError, cam2seg.CheckpointError):
        assert issubclass(error, cam2seg.Error)
    with pytest.raises(cam2seg.DataError, match="expected a run of train_cls.py or train_seg.py"):
        cam2seg.load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(cam2seg.Error, match="holds notes.txt"):
        cam2seg.load(tmp_path)
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0/swa.pt").write_bytes(b"junk")
    with pytest.raises(cam2seg.CheckpointError, match="cannot be read as a checkpoint"):
        cam2seg.load(tmp_path)
    predict = cam2seg.load(runs / "seg", "cpu")
    for bad, said in [(np.zeros((4, 4)), "float64"), (np.zeros((4, 4, 2), np.uint8), "expected"),
                      (tmp_path / "no.png", "no.png")]:
        with pytest.raises(cam2seg.DataError, match=said):
            predict(bad)
    with pytest.raises(cam2seg.DataError, match="fold 9: expected one of 0, 1"):
        predict(np.zeros((8, 8), np.uint8), fold=9)
    with pytest.raises(cam2seg.DataError, match="no activation maps"):
        predict.maps(np.zeros((8, 8), np.uint8))
    with pytest.raises(cam2seg.DataError, match="device"):
        cam2seg.load(runs / "seg", "toaster")


def test_all_public_names_are_there_and_the_import_is_light():
    assert all(getattr(cam2seg, name) for name in cam2seg.__all__)
    with pytest.raises(AttributeError):
        cam2seg.nothing
    code = "import sys, cam2seg; print('torch' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent,
                          capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
