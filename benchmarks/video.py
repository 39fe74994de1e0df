"""The masks of --method video beside simpler ways to carry a first mask, on generated sequences.

    python benchmarks/video.py --out runs/video_bench

Writes sequences of moving, turning, crossing and leaving objects, runs make_masks.py --method video
on them, and scores its masks: region similarity J and boundary accuracy F, means over the frames
after the first and over both objects, for each kind of sequence. Beside them:

copy          every frame has the masks of the first one
colour        the same propagation with the mean colour of a cell in place of learned features. The
              temperature is the one of three with the best J here, so that true masks favour it
untrained     the same propagation with the features of the network before its training

With --more it also carries masks by the trained features with other settings, one changed at a
time, and through the same frames without colour.
"""

import argparse
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
import make_masks  # noqa: E402
from cam2seg.data import image_folder, labels  # noqa: E402
from cam2seg.data.csv_files import read_csv  # noqa: E402
from cam2seg.demo import motion  # noqa: E402
from cam2seg.methods import video  # noqa: E402
from cam2seg.report.tables import print_table  # noqa: E402
from cam2seg.runs.checkpoints import load_checkpoint  # noqa: E402
from cam2seg.runs.exits import run  # noqa: E402
from cam2seg.runs.folder import write_json  # noqa: E402
from cam2seg.training import video_masks  # noqa: E402

TEMPERATURES = (0.0005, 0.005, 0.05)  # of squared distances in Lab
FAR = 10.0  # radius of the sphere of Colours


class Colours(torch.nn.Module):
    """The mean Lab colour x of each cell as the point (x, sqrt(FAR^2 - |x|^2)) of a sphere.

    The inner product of two such points is FAR^2 less half the square of their distance, which is
    all but that of the colours. video.describe makes the length 1, so that tau has 1 / FAR^2 in it.
    """

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))  # says on which device this runs

    def forward(self, frames):
        x = video.cells(frames)
        return torch.cat([x, (FAR**2 - x.square().sum(dim=1, keepdim=True)).sqrt()], dim=1)


def read_truth(data):
    """The sequences with the masks of their first frames, and the true masks of all frames."""
    truth = labels.read_masks(data / "masks.csv", data / "frames")
    names = image_folder.list_images(data / "frames")
    sizes = {name: Image.open(data / "frames" / name).size[::-1] for name in names}
    first = labels.read_masks(data / "first.csv", data / "frames", truth.classes)
    return video_masks.check(data / "first.csv", first, names, sizes), truth


def carried(data, videos, net, *reach):
    """Run lengths of the masks that the features of `net` carry; reach: see
    video_masks.make_masks."""
    def read(v, t):
        return video_masks.read_frame(data / "frames" / v.names[t],
                                      video_masks.working_size(v.size))

    return video_masks.make_masks(net, videos, read, reach)[0]


def copied(videos):
    """Run lengths of the masks of the first frame in every frame."""
    return {(name, c): video_masks.rle_encode(mask) for v in videos for name in v.names
            for c, mask in enumerate(v.first)}


def by_colour(data, videos, truth, *reach):
    """Run lengths of the masks that colour carries at the temperature with the best J."""
    net = Colours()
    made = [carried(data, videos, net, *reach, t / FAR**2) for t in TEMPERATURES]
    return max(made, key=lambda rles: video_masks.scores(videos, truth, rles)["mean"][0])


def row(title, scores):
    """One row: the title, then J and F over all sequences and over those of each kind."""
    cells = [title, *scores["mean"]]
    for kind in motion.KINDS:
        cells += np.mean([v for k, v in scores.items() if k.endswith(kind)], axis=0).tolist()
    return cells


def masks_by_script(data, out, *flags):
    """Run lengths that make_masks.py --method video writes."""
    argv = ["--images", data / "frames", "--first", data / "first.csv", "--method", "video",
            "--device", "cpu", "--overwrite", "--out", out, *flags]
    if run(make_masks.main, lambda: make_masks.get_args([str(a) for a in argv])):
        sys.exit(f"make_masks.py failed: {argv}")
    return labels.read_masks(out / "masks.csv", data / "frames").rles


def without_colour(data, out):
    """A copy of the sequences whose frames are grey."""
    for name in image_folder.list_images(data / "frames"):
        (out / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(data / "frames" / name).convert("L").save(out / "frames" / name)
    for name in ("first.csv", "masks.csv"):
        (out / name).write_bytes((data / name).read_bytes())
    return out


def settings(data, videos, trained, reach):
    """Yield (what is changed, run lengths) of the trained features with other settings."""
    radius, memory = reach
    net = video.network()
    net.load_state_dict(load_checkpoint(trained / video_masks.FILE)["model"])
    for n in (0, 1, 7):
        yield f"memory {n}", carried(data, videos, net, radius, n)
    for top in (1, 20):
        with patch.object(video, "TOP", top):
            yield f"top {top}", carried(data, videos, net, *reach)
    for r in (4, 12):
        yield f"radius {r}", carried(data, videos, net, r, memory)
    for tau in (0.02, 0.2):
        yield f"temperature {tau}", carried(data, videos, net, *reach, tau)


def ways(args, data, videos, truth):
    """Yield (name, run lengths) of all that is compared."""
    reach = make_masks.get_args([]).radius, make_masks.get_args([]).memory
    yield "copy", copied(videos)
    yield "video", masks_by_script(data, args.out / "run", "--steps", args.steps)
    yield "colour", by_colour(data, videos, truth, *reach)
    yield "untrained", carried(data, videos, video.network(), *reach)
    if args.more:
        yield from settings(data, videos, args.out / "run", reach)
        yield "grey", masks_by_script(without_colour(data, args.out / "grey"), args.out / "run2")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="a new folder")
    p.add_argument("--sequences", type=int, default=8)
    p.add_argument("--frames", type=int, default=12)
    p.add_argument("--size", type=int, nargs=2, default=(64, 80))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--more", action="store_true", help="other settings as well")
    args = p.parse_args()
    torch.set_num_threads(1)
    data, rows = args.out / "data", []
    motion.write(data, args.sequences, args.frames, tuple(args.size), args.seed)
    videos, truth = read_truth(data)
    for title, rles in ways(args, data, videos, truth):
        rows.append(row(title, video_masks.scores(videos, truth, rles)))
        print(*rows[-1], flush=True)
        write_json(args.out / "scores.json", rows)
    print_table(f"J and F over {len(videos)} sequences",
                ["masks", "J", "F", *(f"{s} {kind}" for kind in motion.KINDS for s in "JF")], rows)


if __name__ == "__main__":
    main()
