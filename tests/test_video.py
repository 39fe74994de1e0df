"""Masks carried through a video: the formulas against loops, the baselines, and the script."""

import json
import sys
from math import exp
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEAD, call, contents, results
from PIL import Image

from cam2seg.methods.boundaries import sequence_scores
from cam2seg.data.csv_files import read_csv
from cam2seg.data.folds import read_folds
from cam2seg.data.labels import read_masks
from cam2seg.demo import motion
from cam2seg.masks import rle_decode
from cam2seg.methods import video
from cam2seg.runs.progress import Progress
from cam2seg.runs.signals import Stopped
from cam2seg.training import video_masks

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import video as bench  # noqa: E402

# The formulas


def literal_lab(rgb):
    u = [v / 255 for v in rgb]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in u]
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    g = []
    for row, w in zip(matrix, white, strict=True):
        t = sum(a * b for a, b in zip(row, linear, strict=True)) / w
        g.append(t ** (1 / 3) if t > 216 / 24389 else t * 841 / 108 + 4 / 29)
    return 116 * g[1] - 16, 500 * (g[0] - g[1]), 200 * (g[1] - g[2])


def test_lab_equals_the_loops_and_known_colours():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    rgb[0, 0] = [[0, 0, 0], [1, 2, 3], [255, 255, 255], [255, 0, 0], [10, 10, 10]]
    found = video.lab(torch.from_numpy(rgb))
    assert found.shape == (2, 3, 4, 5)
    for n, i, j in np.ndindex(2, 4, 5):
        L, a, b = literal_lab(rgb[n, i, j].tolist())
        assert found[n, :, i, j].tolist() == pytest.approx([L / 50 - 1, a / 100, b / 100], abs=1e-5)
    L, a, b = literal_lab([255, 0, 0])  # the red of sRGB in tables of colours
    assert (L, a, b) == pytest.approx((53.24, 80.09, 67.20), abs=0.05)


def literal_copy(query, references, values, radius, tau, top):
    """[V-2] and [V-3] for one pair, one cell after the other: (C, h, w)."""
    D, h, w = query.shape
    out = np.zeros((len(values[0]), h, w))
    for i in range(h):
        for j in range(w):
            seen = []
            for reference, value in zip(references, values, strict=True):
                for a in range(max(0, i - radius), min(h, i + radius + 1)):
                    for b in range(max(0, j - radius), min(w, j + radius + 1)):
                        s = sum(query[d, i, j] * reference[d, a, b] for d in range(D))
                        seen.append((s, value[:, a, b]))
            seen = sorted(seen, key=lambda one: -one[0])[:top]
            total = sum(exp(s / tau) for s, _ in seen)
            out[:, i, j] = sum(exp(s / tau) / total * x for s, x in seen)
    return out


@pytest.mark.parametrize("top", [None, 1, 4])
@pytest.mark.parametrize("size, radius", [((5, 9), 2), ((11, 4), 3), ((8, 8), 12)])
def test_a_copy_equals_the_loops(top, size, radius):
    rng = np.random.default_rng(radius)
    query, *references = rng.normal(size=(3, 2, 3, *size))
    values = rng.normal(size=(2, 2, 2, *size))
    tensors = [torch.from_numpy(query)], map(torch.from_numpy, references), map(torch.from_numpy,
                                                                                values)
    found = video.copy(tensors[0][0], list(tensors[1]), list(tensors[2]), radius, 0.4, top)
    for n in range(2):
        expected = literal_copy(query[n], [r[n] for r in references], [v[n] for v in values],
                                radius, 0.4, top)
        np.testing.assert_allclose(found[n].numpy(), expected, atol=1e-10)


def test_the_labels_of_a_texture_that_moves_move_with_it():
    """Each cell has a feature of its own, so that the copy is the movement itself."""
    g = torch.Generator().manual_seed(0)
    f = torch.nn.functional.normalize(torch.randn(1, 16, 20, 24, generator=g), dim=1)
    M = (torch.rand(1, 2, 20, 24, generator=g) > 0.6).float()
    moved = [torch.roll(x, (3, -2), dims=(2, 3)) for x in (f, M)]
    found = video.copy(moved[0], [f], [M], 4, 0.01)
    inside = (..., slice(3, None), slice(None, -2))
    assert (found[inside] - moved[1][inside]).abs().max() < 1e-4
    out_of_reach = video.copy(moved[0], [f], [M], 2, 0.01)
    assert (out_of_reach[inside] - moved[1][inside]).abs().mean() > 0.1


class Shades(torch.nn.Module):
    """Features that are a linear function of the mean colour of a cell."""

    def forward(self, frames):
        mix = torch.tensor([[1.0, 2, -1], [0.5, -1, 3], [2, 1, 1], [-1, 0.3, 0.2]]).to(frames)
        return torch.einsum("dc,bchw->bdhw", mix, video.cells(frames)) + 0.1


def literal_cells(x):
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    return sum(x[..., a:2 * h:2, b:2 * w:2] for a in (0, 1) for b in (0, 1)) / 4


@pytest.mark.parametrize("channel", [1, 2])
def test_the_loss_equals_the_loops(channel):
    rng = np.random.default_rng(channel)
    frames = rng.uniform(-1, 1, (2, 2, 3, 8, 12))  # query and reference, B, 3, H, W
    found = video.reconstruction_loss(Shades(), *map(torch.from_numpy, frames), channel)
    features, total = [], 0.0
    for side in frames:
        seen = side * 1.5
        seen[:, channel] = 0
        f = Shades()(torch.from_numpy(seen)).numpy()
        features.append(f / np.sqrt((f**2).sum(axis=1, keepdims=True)))
    for n in range(2):
        I, J = (literal_cells(side[n, channel]) for side in frames)
        X = literal_copy(features[0][n], [features[1][n]], [J[None]], 6, 0.07, None)[0]
        for d in (X - I).ravel():
            total += d * d * 10 if abs(d) < 0.05 else abs(d) - 0.025
    assert float(found) == pytest.approx(total / (2 * 4 * 6), rel=1e-9)


def test_the_network_sees_nothing_of_the_channel_that_it_copies():
    torch.manual_seed(0)
    query, reference = torch.rand(2, 1, 3, 16, 16)
    seen = []
    net = torch.nn.Module()
    net.forward = lambda frames: seen.append(frames.clone()) or Shades()(frames)
    for channel in (1, 2):
        video.reconstruction_loss(net, query, reference, channel)
        assert not seen[-1][:, channel].any()
        others = [c for c in range(3) if c != channel]
        assert torch.equal(seen[-1][:1, others], 1.5 * query[:, others])


def test_labels_come_from_the_first_and_the_last_frames(monkeypatch):
    asked = []

    def copy(query, references, values, radius, temperature, top):
        asked.append(([int(r[0, 0, 0, 0]) for r in references],
                      [float(v[0, 0, 0, 0]) for v in values]))
        assert (radius, top) == (4, 5)
        return query[:, :1] * 10

    monkeypatch.setattr(video, "copy", copy)
    frames = [torch.full((2, 1, 1), float(t)) for t in range(6)]
    found = list(video.propagate(frames, torch.tensor([[[7.0]]]), 4, 2))
    assert [float(M) for M in found] == [7, 10, 20, 30, 40, 50]
    assert [names for names, _ in asked] == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]
    assert asked[-1][1] == [7, 30, 40]
    asked.clear()
    list(video.propagate(frames, torch.tensor([[[7.0]]]), 4, 0))
    assert [names for names, _ in asked] == [[0]] * 5


def test_masks_and_doubt_by_hand():
    """Two cells 0 and 1 of a row make four pixels 0, 1/4, 3/4, 1."""
    M = torch.tensor([[[0.0, 1.0]], [[0.0, 0.4]]])
    masks, doubt = video.masks_of(M, (1, 4))
    assert masks.tolist() == [[[False, False, True, True]], [[False] * 4]]
    assert doubt.tolist() == [[[False] * 4], [[False, False, True, True]]]


def test_features_have_length_one_and_the_seed_is_all_that_they_depend_on():
    before = torch.random.get_rng_state()
    a, b, other = video.network(), video.network(), video.network(1)
    assert torch.equal(before, torch.random.get_rng_state())
    frames = torch.rand(2, 3, 22, 30)
    f = video.describe(a, frames)
    assert f.shape == (2, video.FEATURES, 11, 15)
    assert torch.allclose(f.norm(dim=1), torch.ones(2, 11, 15))
    assert torch.equal(f, video.describe(b, frames))
    assert not torch.allclose(f, video.describe(other, frames))


# The sequences, and what is read of them


@pytest.mark.parametrize("kind", motion.KINDS)
def test_a_sequence_shows_what_its_name_says(kind):
    images, masks = motion.sequence(np.random.default_rng(5), kind, 16, (48, 64))
    assert images.shape == (16, 48, 64, 3) and images.dtype == np.uint8
    assert masks.shape == (16, 2, 48, 64)
    assert masks[0].any(axis=(1, 2)).all() and not (masks[:, 0] & masks[:, 1]).any()
    area = masks.sum(axis=(2, 3))
    columns = np.array([np.nonzero(m)[1].mean() if m.any() else np.nan for m in masks[:, 0]])
    if kind == "leaving":
        assert area[-1, 0] == 0 and area[-1, 1] > 0
    elif kind == "crossing":
        assert area[:, 0].min() < 0.8 * area[0, 0]
        assert np.sign(columns[-1] - columns[0]) != np.sign(
            np.nonzero(masks[-1, 1])[1].mean() - np.nonzero(masks[0, 1])[1].mean())
    else:
        assert area.min() > 0.7 * area[0].min()
    if kind == "moving":
        assert abs(columns[-1] - columns[0]) > 12


def test_the_same_seed_draws_the_same_sequence():
    one, two, other = (motion.sequence(np.random.default_rng(n), "moving", 2, (48, 64))
                       for n in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert not (one[0] == other[0]).all()


def test_colours_do_not_tell_the_objects_from_the_ground():
    """Of the colours inside, coarsely counted, most also lie outside."""
    for i in range(3):
        images, masks = motion.sequence(np.random.default_rng((1, i)), "moving", 2, (64, 80))
        inside = masks[0].any(axis=0)
        coarse = (images[0] // 48).astype(int) @ [36, 6, 1]
        assert np.isin(coarse[inside], coarse[~inside]).mean() > 0.8


def test_frames_are_in_the_order_of_their_numbers():
    names = ["b/frame10.png", "b/frame9.png", "a.png", "b/frame9a.png", "b/frame09.png"]
    assert video_masks.sequences(names) == [
        ["a.png"], ["b/frame09.png", "b/frame9.png", "b/frame9a.png", "b/frame10.png"]]


def test_sizes_and_folds_by_hand():
    assert video_masks.working_size((97, 131)) == (96, 132)
    assert video_masks.working_size((1080, 1920)) == (144, 256)
    assert video_masks.working_size((1080, 1920), (50, 91)) == (50, 92)
    one = [video_masks.Video(list("abcdefg"), (2, 2), None)]
    assert video_masks.folds(one, "gfedcba").tolist() == [4, 3, 2, 2, 1, 0, 0]
    many = [video_masks.Video([f"{i}/0", f"{i}/1"], (2, 2), None) for i in range(6)]
    names = [name for v in many for name in v.names]
    assert video_masks.folds(many, names).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0]


def test_pairs_are_near_in_time_and_crops_are_of_one_place():
    rng = np.random.default_rng(0)
    videos = [video_masks.Video(["x"], (2, 2), None),
              video_masks.Video(list("abcdefg"), (2, 2), None)]
    drawn = [video_masks.draw_pair(rng, videos) for _ in range(200)]
    assert {v.names[0] for v, _, _ in drawn} == {"a"}
    assert {q - r for _, q, r in drawn} == {-3, -2, -1, 1, 2, 3}
    assert {q for _, q, _ in drawn} == set(range(7))
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(40.0), indexing="ij")
    frame = torch.stack([y, x, y])
    for _ in range(5):
        a, b = video_masks.crop_pair(rng, (frame, frame + 100))
        assert a.shape == (3, 64, 64) and torch.equal(a + 100, b)
        assert (a[0, 1:] - a[0, :-1] == 1).all() and (a[1, :, 39:] == 39).all()


# Through the script


def flags(folder, out, *more):
    return ("make_masks", "--images", folder / "frames", "--first", folder / "first.csv",
            "--method", "video", "--device", "cpu", "--out", out, *more)


def one_clip(folder, count=4, size=(20, 24)):
    """Frames of one folder, and a table of one mask of the first; returns its rows."""
    rng = np.random.default_rng(0)
    (folder / "frames").mkdir(parents=True)
    for t in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(
            folder / f"frames/{t}.png")
    (folder / "first.csv").write_text(HEAD + "0.png,cup,5 9\n")
    return folder


def test_true_masks_change_nothing_but_the_scores(tmp_path, capsys):
    folder = one_clip(tmp_path / "clip")
    truth = {(f"{t}.png", 0): f"{5 + 20 * t} 9" for t in range(4)}
    (folder / "masks.csv").write_text(HEAD + "".join(
        f"{name},cup,{rle}\n" for (name, _), rle in truth.items()))
    more = {"a": (), "b": ("--labels", folder / "masks.csv")}
    for name in more:
        assert call(*flags(folder, tmp_path / name, "--steps", 3, *more[name])) == 0
    for name in ("masks.csv", "ignore.csv", "features.pt", "folds.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    table = json.loads((tmp_path / "b/metrics.json").read_text())["table2"][0]
    made = read_masks(tmp_path / "b/masks.csv", folder / "frames").rles
    J, F = sequence_scores(*(np.array([[rle_decode(rles.get((f"{t}.png", 0), ""), (20, 24))]
                                       for t in range(4)]) for rles in (truth, made)))
    assert table["J and F"] == {".": [J, F], "mean": [J, F]}
    assert f"region similarity J {J:.4f}, boundary F {F:.4f}" in capsys.readouterr().out


def test_a_stopped_or_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    folder = one_clip(tmp_path / "clip")
    monkeypatch.setattr(video_masks, "SAVE", 4)
    out, line = tmp_path / "out", ("--steps", 9, "--resume")
    assert call(*flags(folder, tmp_path / "whole", *line)) == 0
    where = None

    class Halting(Progress):
        def add(self, *what):
            super().add(*what)
            if where == (self.what, self.done):
                raise halt

    monkeypatch.setattr(video_masks, "Progress", Halting)
    for where, halt in ((("video: features", 3), Stopped(15)),
                        (("video: features", 6), ZeroDivisionError()),
                        (("masks", 2), Stopped(15))):
        try:
            assert call(*flags(folder, out, *line)) == 143
        except ZeroDivisionError:
            pass
        assert not (out / "masks.csv").exists()
    where = None
    assert call(*flags(folder, out, *line)) == 0
    assert results(out) == results(tmp_path / "whole")


def test_one_folder_of_small_frames_and_no_training(tmp_path):
    folder = one_clip(tmp_path / "clip", size=(5, 7))
    for extra in (("--steps", 0), ("--steps", 2, "--memory", 0, "--radius", 1, "--size", 6, 4)):
        assert call(*flags(folder, tmp_path / f"out{extra[1]}"), *extra) == 0
        made = read_masks(tmp_path / f"out{extra[1]}/masks.csv", folder / "frames")
        assert made.names == ["0.png", "1.png", "2.png", "3.png"] and made.classes == ["cup"]
        assert made.rles["0.png", 0] == "5 9"


def test_grey_frames_are_masked_with_a_warning_and_without_training(tmp_path, capsys):
    folder = one_clip(tmp_path / "clip")
    for path in (folder / "frames").iterdir():
        Image.open(path).convert("L").save(path)
    assert call(*flags(folder, tmp_path / "out")) == 0
    assert "the frames are grey, and without colour" in capsys.readouterr().err
    assert (tmp_path / "out/masks.csv").exists() and not (tmp_path / "out/features.pt").exists()


@pytest.mark.parametrize("rows, said", [
    ("0.png,cup,5 9\n2.png,cup,1 3\n", "first.csv, row 3: '2.png' is not the first frame of its "
     "folder, expected masks of '0.png' alone"),
    ("0.png,cup,\n", "first.csv: no mask of '0.png', expected one for the first frame of each "
     "folder"),
    ("9.png,cup,1 2\n", "first.csv, row 2: image '9.png' is not in the image folder"),
    ("0.png,cup,470 99\n", "first.csv, row 2: 0.png: run '470 99' ends beyond the image's 20 x 24 "
     "pixels"),
    ("0.png,cup,5 9\n0.png,cup,1 2\n", "row 3: 0.png cup stands in row 2 already")])
def test_a_wrong_table_of_first_masks_is_refused(tmp_path, refused, rows, said):
    folder = one_clip(tmp_path / "clip")
    (folder / "first.csv").write_text(HEAD + rows)
    assert said in refused(*flags(folder, tmp_path / "out"))


def test_wrong_frames_and_flags_are_refused(tmp_path, refused):
    folder = one_clip(tmp_path / "clip")
    line = flags(folder, tmp_path / "out")
    assert refused(*line, "--classes", "pot") == \
        f"{folder}/first.csv: no mask of '0.png', expected one for the first frame of each folder"
    assert refused(*line, "--reuse-maps") == \
        "--method video makes no maps that --reuse-maps could take"
    (folder / "some.csv").write_text(HEAD + "0.png,cup,5 9\n1.png,cup,\n")
    for name, text in (("some.csv", None), ("labels.csv", "ImageId,cup\n0.png,1\n1.png,0\n")):
        if text:
            (folder / name).write_text(text)
        assert refused(*line, "--labels", folder / name) == \
            f"{folder / name}: expected masks of all frames, to score ours"
    assert refused("make_masks", "--images", folder / "frames", "--method", "video", "--out",
                   tmp_path / "out") == \
        "--method video needs --first, a CSV with masks of the first frames"
    assert refused("make_masks", "--images", folder / "frames", "--method", "contrast", "--first",
                   folder / "first.csv", "--out", tmp_path / "out") == \
        "--first is for --method video"
    Image.new("RGB", (24, 22)).save(folder / "frames/2.png")
    assert refused(*line) == "'2.png' has 22 x 24 pixels, expected 20 x 24 as in '0.png'"
    for t in (1, 2, 3):
        (folder / f"frames/{t}.png").unlink()
    assert refused(*line) == \
        f"{folder}/first.csv: no folder has two frames or more, expected a video"


def test_the_numbers_of_the_readme_are_those_of_the_benchmark():
    root = Path(__file__).parent.parent
    text = (root / "docs/video.md").read_text(encoding="utf-8")
    measured = {r[0]: r[1:] for r in json.loads(
        (root / "benchmarks/results/video.json").read_text(encoding="utf-8"))}
    for title in ("copy", "colour", "untrained", "video"):
        assert "| " + " | ".join(f"{v:.3f}" for v in measured[title]) + " |" in text
    assert all(measured["video"][n] > measured[title][n] for n in (0, 1)
               for title in ("copy", "colour"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips") / "data"
    motion.write(folder, 4, 10, (64, 80), seed=3)
    return folder


@pytest.fixture(scope="module")
def video_run(clips, tmp_path_factory):
    out = tmp_path_factory.mktemp("video") / "run"
    assert call(*flags(clips, out, "--steps", 60)) == 0
    return out


def test_both_baselines_are_beaten(clips, video_run, monkeypatch):
    monkeypatch.setattr(bench, "TEMPERATURES", (0.005,))
    videos, truth = bench.read_truth(clips)
    made = read_masks(video_run / "masks.csv", clips / "frames").rles
    ours = video_masks.scores(videos, truth, made)["mean"]
    for rles in (bench.copied(videos), bench.by_colour(clips, videos, truth, 8, 3)):
        J, F = video_masks.scores(videos, truth, rles)["mean"]
        assert ours[0] > J + 0.1 and ours[1] > F + 0.05


def test_the_files_hold_every_frame_and_the_given_masks(clips, video_run):
    made = read_masks(video_run / "masks.csv", clips / "frames")
    left_out = read_masks(video_run / "ignore.csv", clips / "frames")
    assert len(made.names) == 40 and len(read_csv(video_run / "masks.csv")[1]) == 80
    given = read_masks(clips / "first.csv", clips / "frames")
    starts = {(n, c): rle for (n, c), rle in made.rles.items() if n.endswith("/000.png")}
    assert starts == {k: v for k, v in given.rles.items() if v}
    assert not any(n.endswith("/000.png") for n, _ in left_out.rles) and left_out.rles
    fold = read_folds(video_run / "folds.csv")
    assert {n.split("/")[0]: k for n, k in fold.items()} == {
        "000_moving": 0, "001_turning": 1, "002_crossing": 2, "003_leaving": 3}
    assert json.loads((video_run / "args.json").read_text())["args"]["method"] == "video"


def test_a_damaged_state_is_refused_and_other_flags_too(clips, video_run, tmp_path, refused):
    assert "--memory is 5" in refused(*flags(clips, video_run, "--steps", 60, "--resume",
                                            "--memory", 5))
    out = tmp_path / "out"
    out.mkdir()
    for name, content in contents(video_run).items():
        (out / name).write_bytes(content)
    (out / "features.pt").write_bytes(b"no checkpoint")
    assert "features.pt: cannot be read as a checkpoint" in refused(*flags(
        clips, out, "--steps", 60, "--resume"))
