"""Copies of an image are found, turned and mirrored ones included, and share a fold (DEV-42)."""

import argparse
import io

import numpy as np
import pytest
import torch
from PIL import Image

from cam2seg.data import copies, images
from cam2seg.data.errors import DataError
from cam2seg.data.folds import make_folds, read_groups
from cam2seg.data.image_folder import list_images
from cam2seg.data.images import open_image
from cam2seg.data.labels import read_labels
from cam2seg.runs import inputs


def pictures(rng, n):
    """n smooth grey pictures uint8 (n, 20, 20) of different brightness and contrast."""
    coarse = rng.uniform(-1, 1, (n, 5, 5)).repeat(4, axis=1).repeat(4, axis=2)
    grey = rng.uniform(60, 180, (n, 1, 1)) + rng.uniform(8, 50, (n, 1, 1)) * coarse
    return grey.round().clip(0, 255).astype(np.uint8)


def literal_groups(thumbnails):
    """find_copies by loops over pairs and symmetries, with a flood over the pairs found."""
    a = np.asarray(thumbnails, np.float64)
    n = len(a)

    def same(i, j):
        limit = 0.1 * min(a[i].std(), a[j].std())
        for mirrored in (a[i], a[i][:, ::-1]):
            for turns in range(4):
                if np.sqrt(((np.rot90(mirrored, turns) - a[j]) ** 2).mean()) < limit:
                    return True
        return False

    group, count = [-1] * n, 0
    for i in range(n):
        if group[i] >= 0:
            continue
        group[i], open_ = count, [i]
        while open_:
            k = open_.pop()
            for j in range(n):
                if group[j] < 0 and same(k, j):
                    group[j] = count
                    open_.append(j)
        count += 1
    return group


@pytest.mark.parametrize("seed", range(6))
def test_groups_are_those_of_a_loop_over_all_pairs(seed):
    rng = np.random.default_rng(seed)
    originals = pictures(rng, 9)
    made = [np.rot90(p[:, ::-1] if rng.random() < 0.5 else p, rng.integers(4))
            for p in originals[rng.integers(0, 9, 40)]]
    noisy = np.stack(made) + rng.normal(0, rng.uniform(0, 4, (40, 1, 1)), (40, 20, 20))
    noisy = noisy.round().clip(0, 255).astype(np.uint8)
    found = copies.find_copies(noisy)
    assert found.tolist() == literal_groups(noisy)
    assert len(set(found.tolist())) > 5


def test_more_images_than_one_block_are_all_compared():
    rng = np.random.default_rng(0)
    originals = pictures(rng, 300)
    both = np.concatenate([originals, originals[:, ::-1], np.rot90(originals, 1, (1, 2))])
    order = rng.permutation(900)
    found = copies.find_copies(both[order])
    assert found.max() + 1 == 300
    assert all(len(set((order[found == k] % 300).tolist())) == 1 for k in range(300))


def test_profiles_know_no_symmetry_and_differ_by_no_more_than_the_images():
    rng = np.random.default_rng(3)
    made = np.concatenate([pictures(rng, 20), rng.integers(0, 256, (20, 20, 20))])
    flat = made.reshape(40, 400).astype(np.float32)
    of_profiles = copies.rms_differences(*[copies.brightness_profiles(flat)] * 2)
    for view in copies.symmetries(flat.reshape(40, 20, 20)):
        view = view.reshape(40, 400)
        assert (copies.brightness_profiles(view) == copies.brightness_profiles(flat)).all()
        assert (of_profiles <= copies.rms_differences(view, flat) + 1e-5).all()
    assert of_profiles[0, 1] > 1


@pytest.mark.parametrize("part, groups", [(0.095, 1), (0.105, 2)])
def test_a_copy_of_other_brightness_is_one_up_to_the_limit(part, groups):
    """As many others as a block holds lie between the two by their mean brightness."""
    image, *others = pictures(np.random.default_rng(4), 1 + copies.BLOCK).astype(np.float64)
    step = part * image.std()
    others = [o - o.mean() + image.mean() + step / 2 for o in others]
    found = copies.find_copies(np.stack([image, *others, np.rot90(image) + step]))
    assert found.max() + 1 == groups + copies.BLOCK


def test_flat_images_are_no_copies():
    flat = np.full((4, 20, 20), 90, np.uint8)
    assert copies.find_copies(flat).tolist() == [0, 1, 2, 3]


def test_an_image_of_another_contrast_is_no_copy():
    p = pictures(np.random.default_rng(1), 1)[0].astype(float)
    both = np.stack([p, p.mean() + 0.8 * (p - p.mean())])
    assert copies.find_copies(both).tolist() == [0, 1]


def test_the_weaker_contrast_sets_the_limit():
    p = np.random.default_rng(2).choice([28, 228], (20, 20))
    both = np.stack([p, p.mean() + 0.905 * (p - p.mean())])  # rms: 0.095 of one, 0.105 of the other
    assert copies.find_copies(both).tolist() == [0, 1]
    both[1] = p.mean() + 0.915 * (p - p.mean())  # 0.085 and 0.093
    assert copies.find_copies(both).tolist() == [0, 0]


def test_the_thumbnail_holds_the_means_of_equal_boxes():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 60, 1), dtype=np.uint8).repeat(3, axis=2)
    by_hand = grey[:, :, 0].reshape(20, 2, 20, 3).mean(axis=(1, 3))
    assert np.abs(copies.thumbnail(grey) - by_hand).max() <= 1


def test_a_group_stays_in_one_fold_and_folds_stay_even():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, 120)
    groups = np.repeat(np.arange(120), rng.integers(1, 5, 120))
    y = np.eye(4, dtype=int)[kind][groups][:, 1:]
    order = rng.permutation(len(y))
    y, groups = y[order], groups[order]
    fold = make_folds(y, 5, 0, groups)
    assert all(len(set(fold[groups == g].tolist())) == 1 for g in range(120))
    for part in [*(y.T > 0), np.ones(len(y), bool)]:
        assert np.abs(np.bincount(fold[part], minlength=5) - part.sum() / 5).max() <= 8


def test_groups_of_one_image_change_no_fold():
    y = (np.random.default_rng(2).random((200, 3)) < 0.3).astype(int)
    names = np.random.default_rng(3).permutation(200)
    np.testing.assert_array_equal(make_folds(y, 4, 1, names), make_folds(y, 4, 1))


@pytest.fixture
def copied(tmp_path):
    """Flags and labels of 24 images: 8 pictures, each stored three times."""
    rng, rows = np.random.default_rng(0), ["ImageId,spot"]
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(pictures(rng, 8)):
        big = picture.repeat(3, axis=0).repeat(3, axis=1)
        for k, view in enumerate((big, big.T, np.rot90(big))):
            Image.fromarray(view).save(tmp_path / "images" / f"{i}_{k}.png")
            rows.append(f"{i}_{k}.png,{i % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return argparse.Namespace(images=tmp_path / "images", data=None, labels=tmp_path / "labels.csv",
                              out=tmp_path / "run", fold=None, folds=2, resume=False, seed=0,
                              groups="copies", classes=None)


def test_new_folds_keep_copies_together_and_say_so(copied):
    said = []
    found, seen = inputs.load_labels(copied)
    assert seen.sizes["0_0.png"] == (60, 60)
    fold = inputs.new_folds(copied, found, seen.thumbnails,
                            lambda kind, **facts: said.append(facts.get("text", "")))
    assert [len(set(fold[i:i + 3].tolist())) for i in range(0, 24, 3)] == [1] * 8
    assert any("24 images show 8 pictures" in text for text in said)
    copied.groups = "none"
    apart = inputs.new_folds(copied, found, seen.thumbnails)
    assert max(len(set(apart[i:i + 3].tolist())) for i in range(0, 24, 3)) == 2


def test_processes_can_exchange_what_the_scan_gives(copied):
    """They send it as a file that is read with weights_only (processes.all_gather)."""
    names, file = list_images(copied.images), io.BytesIO()
    seen = images.scan(copied.images, names)
    torch.save((seen, None), file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == (seen, None)
    for name, small in inputs.load_labels(copied)[1].thumbnails.items():
        assert np.array_equal(small, copies.thumbnail(open_image(copied.images / name)))


def test_a_csv_of_groups_decides_too(copied, tmp_path):
    names = list_images(copied.images)
    path = tmp_path / "groups.csv"
    path.write_text("ImageId,group\n" + "".join(f"{n},{'ab'[int(n[0]) > 3]}\n" for n in names))
    assert read_groups(path, names).tolist() == [0] * 12 + [1] * 12
    copied.groups = str(path)
    found = read_labels(copied.labels, copied.images)
    fold = inputs.new_folds(copied, found, {})
    assert len(set(fold[:12].tolist())) == len(set(fold[12:].tolist())) == 1


@pytest.mark.parametrize("text, message", [
    ("ImageId,batch\na.png,1\n", "row 1: columns ImageId,batch; expected ImageId,group"),
    ("ImageId,group\na.png,\n", "row 2: 'a.png' in group ''"),
    ("ImageId,group\na.png,1\na.png,2\n", "row 3: 'a.png' in group '2'"),
    ("ImageId,group\na.png,1\n", "no group for 1 of 2 images, the first is b.png"),
])
def test_a_wrong_csv_of_groups_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        read_groups(path, ["a.png", "b.png"])
