"""benchmarks/levers.py changes what it says, and its table comes from the scripts."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cam2seg import models
from cam2seg.data import dataset

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import levers  # noqa: E402


@pytest.mark.parametrize("stride", [16, 8])
def test_the_dilated_encoder_has_the_cells_of_the_encoder_and_new_ones_between_them(stride):
    torch.manual_seed(0)
    plain, fine = models.encoder("lite0").eval(), models.encoder("lite0").eval()
    fine.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        coarse, found = plain(x), levers.dilated(fine, stride)(x)
    step = 32 // stride
    assert coarse.shape[2:] == (2, 3) and found.shape[2:] == (2 * step, 3 * step)
    assert torch.allclose(found[..., ::step, ::step], coarse, atol=1e-5)


def test_local_contrast_does_not_depend_on_light_and_a_flat_image_is_grey():
    flat = np.asarray(levers.even(Image.new("L", (40, 30), 90)))
    assert flat.shape == (30, 40, 3) and np.isin(flat, (127, 128)).all()
    grey = np.random.default_rng(0).integers(0, 100, (60, 60)).astype(np.uint8)
    dark, light = (np.asarray(levers.even(Image.fromarray(g))).astype(int)
                   for g in (grey, grey + 120))
    assert abs(dark - light).max() <= 1 and dark.std() > 30


def test_mixing_and_erasing_change_half_of_the_training_images_alone(tmp_path):
    for i in range(40):
        Image.new("L", (16, 16), 6 * i).save(tmp_path / f"{i:02d}.png")
    images = dataset.ImageSet(tmp_path, sorted(p.name for p in tmp_path.iterdir()), (16, 16),
                              np.eye(40, dtype=np.float32))
    images.shown = np.array([30, 31])
    get = levers.on_half_of_the_training_images(levers.mixed)
    changed = 0
    for i in range(30):
        assert (get(images, (i, None))[0] == 6 * i).all()
        image, target = get(images, (i, 1))
        if target.sum() == 2:
            j, = set(np.flatnonzero(target)) - {i}
            assert j in (30, 31) and (image == 3 * (i + j)).all()
            changed += 1
        else:
            assert (image == 6 * i).all() and target[i] == 1
    assert 8 < changed < 22
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    erased, _ = levers.erased(images, (0, 1), image.copy(), None, np.random.default_rng(0))
    hidden = (erased != image).any(axis=2)
    assert (erased[hidden] == 127).all() and 6 < hidden.sum() < 60
    rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
    assert hidden.sum() >= len(rows) * len(columns) - 1  # a rectangle


def test_the_table_comes_from_the_scripts(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [
        "levers.py", "--data", str(shapes), "--out", str(tmp_path), "--levers", "os16", "--arch",
        "b0", "--weights", "none", "--size", "32", "32", "--epochs", "1"])
    levers.main()
    row = json.loads((tmp_path / "levers.jsonl").read_text())
    made = json.loads((tmp_path / "os16/auto/metrics.json").read_text())
    assert row["lever"] == "os16" and len(row["roc_auc"]) == 2
    assert row["auto"] == made["table2"][0]["scores"]["dice_present"][0]
    assert "fold 0, mean over classes" in capsys.readouterr().out
    assert np.load(tmp_path / "os16/gradcam++/maps.npy").shape[2:] == (2, 2)
