"""The route from class labels to masks that never meets a true mask, through the scripts."""

import ast
import math
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, contents
from PIL import Image

from cam2seg.data.csv_files import write_csv
from cam2seg.data.labels import read_labels
from cam2seg.demo import toys
from cam2seg.masks import rle_decode, rle_encode
from cam2seg.methods import contrast, reflection, texture
from cam2seg.metrics import mask_counts, mask_scores
from cam2seg.report import mask_report
from cam2seg.training import label_only, ways

FAST = ("--workers", 0, "--device", "cpu", "--weights", "none", "--size", 32, 32, "--batch-size", 8)


def write_set(folder, draw, count, seed=0):
    """Write images of a toy set and labels.csv, which holds labels alone; return the true masks
    {(name, class index): run lengths}."""
    (folder / "train_images").mkdir(parents=True)
    truth, rows = {}, []
    for i in range(count):
        image, true = draw(np.random.default_rng((seed, i)))
        name = f"{i:03d}.png"
        Image.fromarray(image).save(folder / "train_images" / name)
        rows.append((name, *(int(m.any()) for m in true)))
        truth.update({(name, c): rle_encode(m) for c, m in enumerate(true) if m.any()})
    write_csv(folder / "labels.csv", ("ImageId", *"ab"[:len(true)]), rows)
    return truth


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Sixty images whose ground tells the label, with odd blobs; no truth on the disk."""
    folder = tmp_path_factory.mktemp("ground")
    return folder, write_set(folder, toys.ground, 60)


@pytest.fixture(scope="module")
def contrast_run(ground, tmp_path_factory):
    out = tmp_path_factory.mktemp("contrast") / "masks"
    folder, _ = ground
    assert call("make_masks", "--images", folder / "train_images", "--labels",
                folder / "labels.csv", "--cls", folder / "none", "--out", out, "--method",
                "contrast", "--review", 5) == 0
    return out


def present_dice(folder, truth, path):
    """Dice over the pairs that have a true mask."""
    found = read_labels(path, folder / "train_images")
    sizes = {n: Image.open(folder / "train_images" / n).size[::-1] for n in found.names}
    counts = mask_counts(found.names, truth, found.rles, sizes, len(found.classes))
    return mask_scores(*counts)["dice_present"][1]


def test_contrast_finds_the_place_where_the_ground_tells_the_label(ground, contrast_run):
    folder, truth = ground
    assert present_dice(folder, truth, contrast_run / "masks.csv") > 0.75


def test_the_masks_obey_the_labels_and_ignore_no_mask(ground, contrast_run):
    folder, _ = ground
    labels = read_labels(folder / "labels.csv")
    made, left_out = (read_labels(contrast_run / f"{n}.csv") for n in ("masks", "ignore"))
    present = {(n, c) for i, n in enumerate(labels.names) for c in np.flatnonzero(labels.y[i])}
    assert {k for k, rle in made.rles.items() if rle} <= present
    for key, rle in left_out.rles.items():
        assert key in present
        mask = rle_decode(made.rles.get(key, ""), (64, 64))
        assert not (mask & rle_decode(rle, (64, 64))).any()


def test_the_whole_route_runs_where_no_true_mask_exists(ground, contrast_run, tmp_path):
    folder, truth = ground
    assert not any("EncodedPixels" in p.read_text() for p in folder.glob("*.csv"))
    assert call("train_seg", "--images", folder / "train_images", "--masks",
                contrast_run / "masks.csv", "--ignore", contrast_run / "ignore.csv", "--folds",
                contrast_run / "folds.csv", "--out", tmp_path / "seg", "--epochs", 4, "--fold", 0,
                "--lr-encoder", 3e-3, "--lr-decoder", 3e-3, "--loss", "bce+dice", *FAST) == 0
    result = json.loads((tmp_path / "seg/metrics.json").read_text())
    assert "table3" not in result and result["images"] == 12


def test_scores_are_all_that_a_true_mask_changes(ground, contrast_run, tmp_path):
    """The same bytes of masks, ignored pixels, folds and choice, whatever the true masks are."""
    folder, truth = ground
    rng = np.random.default_rng(0)
    for name, of in (("true", lambda rle: rle),
                     ("wrong", lambda rle: rle_encode(rng.random((64, 64)) > 0.5))):
        rows = [(n, "ab"[c], of(rle)) for (n, c), rle in sorted(truth.items())]
        write_csv(tmp_path / f"{name}.csv", ("ImageId", "ClassId", "EncodedPixels"), rows)
        assert call("make_masks", "--images", folder / "train_images", "--labels",
                    tmp_path / f"{name}.csv", "--cls", folder / "none", "--out", tmp_path / name,
                    "--method", "contrast") == 0
        for file in ("masks.csv", "ignore.csv", "folds.csv"):
            assert (tmp_path / name / file).read_bytes() == (contrast_run / file).read_bytes()
    scores = [json.loads((tmp_path / n / "metrics.json").read_text())["table2"][0]
              for n in ("true", "wrong")]
    assert scores[0]["choice"] == scores[1]["choice"] and scores[0] != scores[1]


def test_the_run_says_what_it_chose_and_which_masks_to_look_at(ground, contrast_run):
    table = json.loads((contrast_run / "metrics.json").read_text())
    assert [row[0] for row in table["table2"][0]["choice"]] == table["classes"]
    assert all(fact["made"] <= fact["labelled"] for fact in table["masks"])
    with open(contrast_run / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    doubts = [float(r["doubt"]) for r in rows]
    assert len(rows) == 5 and doubts == sorted(doubts, reverse=True)
    assert Image.open(contrast_run / "review.png").size[0] > 500


def test_contrast_without_labels_is_refused(ground, refused, tmp_path):
    folder, _ = ground
    said = refused("make_masks", "--images", folder / "train_images", "--method", "contrast",
                   "--cls", folder / "none", "--out", tmp_path / "out")
    assert re.search("need --labels", said)


def test_a_run_is_refused_twice_and_replaced_with_the_same_bytes(ground, contrast_run, refused):
    folder, _ = ground
    flags = ("--images", folder / "train_images", "--labels", folder / "labels.csv", "--cls",
             folder / "none", "--out", contrast_run, "--method", "contrast", "--review", 5)
    assert "add --overwrite" in refused("make_masks", *flags)
    before = contents(contrast_run)
    assert call("make_masks", *flags, "--resume") == 0
    after = contents(contrast_run)
    assert before.keys() == after.keys()
    for name in before.keys() - {"args.json"}:
        assert before[name] == after[name], name


# No true mask on the way


TRUTH = {"rles", "EncodedPixels", "truth", "true", "Labels", "read_labels", "rle_decode", "csv",
         "checked_runs", "decode_all", "mask_counts"}


def names_in(tree):
    """Every name, attribute, argument, import and string of a piece of code but its docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "module"):
            yield from str(getattr(node, field, "")).split(".")
        if isinstance(node, ast.Constant) and id(node) not in docs:
            yield str(node.value)


@pytest.mark.parametrize("module", [contrast, texture, label_only], ids=lambda m: m.__name__)
def test_the_code_that_draws_masks_does_not_name_a_true_mask(module):
    tree = ast.parse(Path(module.__file__).read_text())
    assert not TRUTH & set(names_in(tree))
    imported = {alias.name for node in ast.walk(tree) for alias in getattr(node, "names", [])
                if isinstance(node, (ast.Import, ast.ImportFrom))}
    assert imported <= {"np", "numpy", "torch", "Tensor", "lru_cache", "label_components",
                        "Callable", "Path", "NamedTuple", "open_rgb", "rle_encode", "contrast",
                        "auto", "texture", "reflection", "blur", "ROUNDING",
                        "Progress", "silent"}


def test_the_ways_hand_the_labels_alone_to_the_code_that_draws_masks():
    """All that the code of the label-only ways gets, and all that is taken of labels."""
    tree = ast.parse(Path(ways.__file__).read_text())
    paths = {n.name: n for n in tree.body if getattr(n, "name", "") in (
        "masks_from_contrast", "masks_from_pixels", "masks_from_auto", "_log_images")}
    nodes = [node for path in paths.values() for node in ast.walk(path)]
    given = [ast.unparse(node) for node in nodes if isinstance(node, ast.Call)
             and ast.unparse(node.func).startswith(("label_only.", "auto_masks.", "pixel_masks."))]
    masks_of = {
        "auto": "auto_masks.masks_of_image(log_image(i), maps_of(i), y[i], int(fold[i]), model)",
        "contrast": "label_only.masks_of_image(log_image(i), y[i], model)",
        "pixels": "pixel_masks.masks_of_image(log_image(i), y[i], int(fold[i]), model)"}
    assert len(paths) == 4 and sorted(set(given)) == sorted([
        *masks_of.values(),
        *(f"label_only.make_masks(lambda i: {made}, work.names, y, report)"
          for made in masks_of.values()),
        "auto_masks.choice_rows(model, work.classes)",
        "auto_masks.fit(log_image, maps_of, _lost_logits(args, work), y, probs, fold, report)",
        "label_only.choice_rows(model, work.classes)", "label_only.fit(log_image, y, report)",
        "label_only.log_image(image_dir / work.names[i])",
        "pixel_masks.choice_rows(model, work.classes)",
        "pixel_masks.fit(log_image, y, fold, report)"])
    taken = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)
             and ast.unparse(node).startswith("work.labels")]
    assert set(taken) == {"work.labels", "work.labels.y", "work.labels.y.astype"}
    for name in ("masks_from_contrast", "masks_from_pixels"):
        assert "y = (_log_images(args, work), work.labels.y.astype(bool))" \
            in ast.unparse(paths[name])
    assert "y = probs >= args.confidence if work.labels is None else work.labels.y.astype(bool)" \
        in ast.unparse(paths["masks_from_auto"])


# The steps, each from the formulas


def odd_images(count, size=(24, 30)):
    """Logarithms of noisy images, and labels: class 0 dark and class 1 bright squares, on grounds
    of unlike texture; every fifth image has both on one ground or the other."""
    images, y = [], np.zeros((count, 2), bool)
    for i in range(count):
        rng = np.random.default_rng(i)
        y[i] = [True, True] if i % 5 == 4 else [i % 2, 1 - i % 2]
        x = rng.normal(-1, (0.02, 0.1)[i % 2], size)
        for c in np.flatnonzero(y[i]):
            row, column = rng.integers(0, (size[0] - 4, size[1] - 4))
            x[row:row + 4, column:column + 4] += (-0.9, 0.9)[c]
        images.append(torch.tensor(x, dtype=torch.float32))
    return images, y


def literal_correction(images, filter, sign, otsu):
    """[C-33] by counting the pixels above each multiple of each image's threshold."""
    middle = float(np.median(otsu))
    for rho in np.geomspace(1, 4, 33):
        right = wrong = 0
        for x, o in zip(images, otsu, strict=True):
            t = math.sqrt(o * middle)
            right += (contrast.evidence(x, filter, sign) > rho * t).sum()
            wrong += (contrast.evidence(x, filter, -sign) > rho * t).sum()
        if right and 2 * wrong <= right:
            return rho
    return 1.0


def test_fit_keeps_the_thresholds_and_textures_of_images_with_one_label():
    images, y = odd_images(60)
    model = label_only.fit(images.__getitem__, y)
    skew = np.stack([contrast.skewness(x) for x in images])
    index, signs, T = contrast.choose(skew, y)
    assert model.filters == [contrast.FILTERS[f] for f in index] and model.signs == signs.tolist()
    assert model.signs == [-1, 1]
    np.testing.assert_array_equal(model.scores, T)
    d, names = [], []
    for c in range(2):
        own = [x for x, row in zip(images, y, strict=True) if row[c] and row.sum() == 1]
        v = [contrast.evidence(x, model.filters[c], model.signs[c]) for x in own]
        o = [contrast.otsu(a) for a in v]
        np.testing.assert_allclose(model.otsu[c], np.array(o) * literal_correction(
            own, model.filters[c], model.signs[c], o), rtol=1e-12)
        assert len(v) == 24
        for x, a in zip(own, v, strict=True):  # a mean over all pixels with the parts weighed alike
            every, inside = texture.describe_pixels(x).numpy(), a.ravel() > contrast.otsu(a)
            d.append((every[inside].mean(axis=0) + every[~inside].mean(axis=0)) / 2)
            names.append(c)
    for c in range(2):  # 60 random pixels of each image come close to that mean
        expected = np.mean([a for a, k in zip(d, names, strict=True) if k == c], axis=0)
        np.testing.assert_allclose(model.texture[0][c], expected, atol=0.05)
    assert label_only.fit(images.__getitem__, y & [True, False]).texture is None


@pytest.mark.parametrize("row", [0, 1, 4, 9])
def test_masks_of_an_image_are_those_of_the_formulas(row):
    images, y = odd_images(60)
    model, x = label_only.fit(images.__getitem__, y), images[row]
    u = np.zeros((2, *x.shape), np.float32)
    q = texture.name_regions(texture.describe_pixels(x), *model.texture, y[row])
    for c in np.flatnonzero(y[row]):
        region = q[c].reshape(x.shape) if y[row].sum() > 1 else None
        v = contrast.evidence(x, model.filters[c], model.signs[c], region)
        u[c] = v / contrast.threshold(contrast.otsu(v), model.otsu[c])
    masks, doubt = contrast.masks_of(u, y[row])
    got = label_only.masks_of_image(x, y[row], model)
    np.testing.assert_array_equal(got[0], masks)
    for c in range(2):
        left_out = doubt if masks[c].any() else np.ones_like(doubt)
        np.testing.assert_array_equal(got[1][c], left_out & y[row, c])
    assert masks[y[row]].any() and not masks[~y[row]].any()


def test_the_ground_of_the_wrong_side_raises_a_threshold(monkeypatch):
    """Small dark squares on a ground with as many bright as dark specks."""
    images, f = [], contrast.FILTERS.index(("dog", 1, 12))
    for i in range(20):
        rng = np.random.default_rng(i)
        x = rng.normal(-1, 0.02, (40, 40))
        x += 0.5 * rng.choice((-1, 0, 1), (40, 40), p=(0.05, 0.9, 0.05))
        row, column = rng.integers(4, 30, 2)
        x[row:row + 3, column:column + 3] -= 0.5
        images.append(torch.tensor(x, dtype=torch.float32))
    monkeypatch.setattr(contrast, "choose", lambda skew, y: (
        np.array([f]), np.array([-1]), np.zeros((1, len(contrast.FILTERS), 2))))
    model = label_only.fit(images.__getitem__, np.ones((20, 1), bool))
    o = [contrast.otsu(contrast.evidence(x, contrast.FILTERS[f], -1)) for x in images]
    rho = literal_correction(images, contrast.FILTERS[f], -1, o)
    assert rho > 2
    np.testing.assert_allclose(model.otsu[0], np.array(o) * rho, rtol=1e-12)


def test_at_most_two_hundred_images_correct_a_threshold(monkeypatch):
    images, y = odd_images(60)
    monkeypatch.setattr(label_only, "PER_CLASS", 2)
    model = label_only.fit(images.__getitem__, y)
    own = [x for x, row in zip(images, y, strict=True) if row[0] and row.sum() == 1]
    o = [contrast.otsu(contrast.evidence(x, model.filters[0], model.signs[0])) for x in own]
    ends, total = [own[0], own[-1]], np.zeros((2, 33), int)
    for x, own_o in zip(ends, (o[0], o[-1]), strict=True):
        t = contrast.threshold(own_o, np.array(o))
        total += [reflection.reach(contrast.evidence(x, model.filters[0], s), t)
                  for s in (model.signs[0], -model.signs[0])]
    np.testing.assert_allclose(model.otsu[0], np.array(o) * reflection.correction(*total))


def test_labels_choose_which_class_gets_a_region():
    images, y = odd_images(60)
    model = label_only.fit(images.__getitem__, y)
    for labels in ([True, False], [False, True], [False, False]):
        masks, _ = label_only.masks_of_image(images[4], np.array(labels), model)
        assert [m.any() for m in masks] == labels


def test_ignored_pixels_are_the_doubt_of_each_label_and_clean_images_have_no_entry():
    images, y = odd_images(60)
    model = label_only.fit(images.__getitem__, y)
    y[3] = False
    made, ignored = label_only.make_masks(
        lambda i: label_only.masks_of_image(images[i], y[i], model), list(range(60)), y)
    assert set(made) == {(i, c) for i in range(60) for c in range(2) if y[i, c]}
    for i in range(60):
        masks, left_out = label_only.masks_of_image(images[i], y[i], model)
        for c in np.flatnonzero(y[i]):
            assert made[i, c] == rle_encode(masks[c])
            assert ignored.get((i, c), "") == rle_encode(left_out[c])
    assert len(ignored) > 10 and all(ignored.values())


def test_a_label_without_a_mask_leaves_the_whole_image_out_for_its_class():
    images, y = odd_images(60)
    model = label_only.fit(images.__getitem__, y)
    model.filters[1] = None
    masks, left_out = label_only.masks_of_image(images[4], np.array([True, True]), model)
    assert masks[0].any() and not left_out[0].all() and not (masks[0] & left_out[0]).any()
    assert not masks[1].any() and left_out[1].all()
    masks, left_out = label_only.masks_of_image(images[4], np.array([True, False]), model)
    assert not masks[1].any() and not left_out[1].any()  # without the label nothing is in doubt


# A class that no filter tells


@pytest.fixture(scope="module")
def silent_class(tmp_path_factory):
    """Images with a dark square (a), images of one grey (b), and two with both labels."""
    folder = tmp_path_factory.mktemp("silent")
    (folder / "train_images").mkdir()
    rows = []
    for i in range(26):
        a, b = i < 12 or i > 23, i >= 12
        grey = np.full((40, 32), 140)
        if a:
            grey = grey + np.random.default_rng(i).integers(-9, 9, grey.shape)
            grey[3 + i:9 + i, 5:12] = 30
        Image.fromarray(grey.astype(np.uint8)).save(folder / f"train_images/{i:02d}.png")
        rows.append((f"{i:02d}.png", int(a), int(b)))
    write_csv(folder / "labels.csv", ("ImageId", "a", "b"), rows)
    return folder


def test_a_class_that_no_filter_tells_gets_no_mask_and_a_warning(silent_class, tmp_path, capsys):
    folder, out = silent_class, tmp_path / "out"
    assert call("make_masks", "--images", folder / "train_images", "--labels",
                folder / "labels.csv", "--cls", folder / "none", "--out", out, "--method",
                "contrast") == 0
    said = capsys.readouterr().err
    assert ("class b: no filter tells its images from the others, so --method contrast makes no "
            "mask of it\n") in said
    assert "class a: no filter" not in said
    made, left_out = (read_labels(out / f"{n}.csv", folder / "train_images").rles
                      for n in ("masks", "ignore"))
    for i in range(26):  # the class without a filter is left out where it is labelled, and only there
        assert rle_decode(left_out.get((f"{i:02d}.png", 1), ""), (40, 32)).all() == (i >= 12)
    assert not any(rle for (_, c), rle in made.items() if c == 1)
    assert all(made[f"{i:02d}.png", 0] for i in (*range(12), 24, 25))
    table = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    first, second = table["table2"][0]["choice"]
    assert first[1].startswith("- ") and first[2] > 0
    assert second == ["b", "none", None, "none", None]


# The mask report, by hand


def test_areas_and_components_of_drawn_masks():
    a = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], bool)  # two components, diagonal joins
    rles, sizes = {("x", 0): rle_encode(a), ("y", 1): ""}, {"x": a.shape, "y": a.shape}
    assert mask_report.measure_areas(rles, ["x", "y"], 2).tolist() == [[4, 0], [0, 0]]
    assert mask_report.count_components(rles, ["x", "y"], sizes, 2).tolist() == [[2, 0], [0, 0]]


def test_facts_and_advice_by_hand():
    areas, parts = np.array([[10, 0], [30, 60], [0, 80]]), np.array([[1, 0], [3, 1], [0, 2]])
    y, pixels = np.array([[1, 0], [1, 1], [0, 1]]), np.full(3, 100)
    facts = mask_report.summarise(areas, parts, y, pixels)
    assert [f["made"] for f in facts] == [2, 2]
    assert facts[0]["area_quantiles"] == pytest.approx([0.12, 0.2, 0.28])
    assert facts[0]["components_per_mask"] == 2 and facts[0]["component_pixels"] == 10
    assert facts[1]["labelled_without_mask"] == 0
    facts = [f | {"cell_pixels": cell} for f, cell in zip(facts, (16, None), strict=True)]
    said = mask_report.advice(["p", "q"], facts, auc=[0.9, 0.55])
    assert [line.split(":")[0] for line in said] == ["class p", "class q", "class q"]
    assert "10 pixels, less than the 16" in said[0] and "more than half of the image" in said[1]
    assert "ROC-AUC is 0.55" in said[2]


def test_advice_on_the_masks_of_networks_by_hand():
    """p has no mask, q covers most of the image, r covers half of it, and s was never taught."""
    names, sizes, classes = list("xyz"), {"x": (5, 4), "y": (10, 10), "z": (10, 10)}, list("pqrs")
    rles = {("x", 1): "1 11", ("y", 1): "1 20 50 40", ("z", 1): "1 2", ("x", 2): "1 10",
            ("y", 0): ""}
    y = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0]])
    covers = "class q: the typical mask covers more than half of the image, which is rarely a " \
        "defect; look at the pictures of --export overlay"
    assert mask_report.advice_on_networks(rles, sizes, names, classes, y) == [
        "class p: no held-out image has a mask, where 2 of 3 have one to learn from; more --epochs "
        "help while the losses still fall", covers]
    assert mask_report.advice_on_networks(rles, sizes, names, classes) == [covers]
    rles["x", 1] = "1 10"  # the median is then at a half
    assert mask_report.advice_on_networks(rles, sizes, names, classes) == []


def test_advice_names_no_parameter_that_a_method_does_not_have():
    areas, y = np.array([[0], [0], [30]]), np.ones((3, 1), int)
    facts = mask_report.summarise(areas, (areas > 0).astype(int), y, np.full(3, 100))
    facts[0]["cell_pixels"] = None
    assert mask_report.advice(["p"], facts) == [
        "class p: more than half of its labelled images have no mask; another --method may find "
        "more of them"]
    assert "--threshold" in mask_report.advice(["p"], facts, by_threshold=True)[0]


def test_agreement_is_the_mean_dice_over_images_with_either_mask():
    rng = np.random.default_rng(1)
    names, sizes = list("vwxyz"), {n: (6, 5) for n in "vwxyz"}
    masks = rng.random((2, 5, 2, 6, 5)) < 0.4
    masks[:, 0, 0], masks[0, 1, 0], masks[:, :, 1] = False, False, False
    rles = [{(n, c): rle_encode(m[i, c]) for i, n in enumerate(names) for c in range(2)}
            for m in masks]
    wanted = []
    for i in range(1, 5):
        a, b = masks[0, i, 0].ravel().tolist(), masks[1, i, 0].ravel().tolist()
        wanted.append(2 * sum(x and y for x, y in zip(a, b, strict=True)) / (sum(a) + sum(b)))
    found = mask_report.agreement(*rles, names, sizes, 2)
    assert found == [pytest.approx(sum(wanted) / 4, abs=1e-12), None] and wanted[0] == 0


def test_masks_are_compared_with_those_of_other_files(ground, contrast_run, tmp_path, capsys, refused):
    folder, _ = ground
    path = contrast_run / "masks.csv"
    first, *rows = path.read_text().splitlines()
    half = [r if i // 3 % 2 else r.rpartition(",")[0] + "," for i, r in enumerate(rows)]
    (tmp_path / "half.csv").write_text("\n".join([first, *half]))
    flags = ("--images", folder / "train_images", "--labels", folder / "labels.csv", "--cls",
             folder / "none", "--method", "contrast", "--compare")
    assert call("make_masks", *flags, path, tmp_path / "half.csv", "--out", tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert re.search(rf"agreement with {re.escape(str(path))} \(mean Dice\)\s+1.0000\s+1.0000", said)
    facts = json.loads((tmp_path / "a/metrics.json").read_text())["masks"]
    ours, other = (read_labels(p, classes=["a", "b"]).rles for p in (path, tmp_path / "half.csv"))
    for c, fact in enumerate(facts):  # a mask agrees with itself, and not at all with none
        made = [k for k in ours if k[1] == c and ours[k]]
        kept = sum(bool(other.get(k)) for k in made)
        assert 0 < kept < len(made)
        assert list(fact["agreement"].values()) == [1, pytest.approx(kept / len(made))]
    bad = tmp_path / "bad.csv"
    bad.write_text(f"{first}\n{rows[0].split(',')[0]},a,1 99999999\n")
    assert "bad.csv, row 2" in refused("make_masks", *flags, bad, "--out", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_doubt_puts_a_missing_mask_first_and_an_odd_area_before_a_typical_one():
    areas, y = np.array([[100], [100], [1000], [0], [0]]), np.array([[1], [1], [1], [1], [0]])
    score = mask_report.doubt(areas, y, np.array([[0], [100], [0], [0], [0]]))
    assert score[:, 0].tolist() == pytest.approx([0, 0.5, 1, 3, -1])
