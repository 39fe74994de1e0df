"""Peak memory of the scripts on few and on many images; each run is a process of its own.

    python benchmarks/memory.py

Prints the peak resident memory (worker processes not counted) of train_cls.py, make_masks.py and
train_seg.py on 64 and on 512 drawn images, and the ratio. It stays near 1: images, masks and maps
are read and written one batch at a time.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PEAK = """import json, resource, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import {script} as script
from cam2seg.runs.exits import run
code = run(script.main, lambda: script.get_args({flags!r}))
print(json.dumps([code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))"""


def peak(script, *flags):
    """Peak resident memory of a script in MiB."""
    code = PEAK.format(root=str(ROOT), script=script, flags=[str(f) for f in flags])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    status, kilobytes = json.loads(done.stdout.splitlines()[-1]) if done.stdout else (1, 0)
    if status:
        sys.exit(f"{script} failed:\n{done.stderr}")
    return kilobytes / 1024


def measure(folder, count):
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from conftest import write_images
    data, runs = folder / f"data{count}", folder / f"runs{count}"
    write_images(data, count, 128)
    machine = "--workers 1 --device cpu --batch-size 16".split()
    small = [*"--weights none --size 64 64 --epochs 1".split(), *machine]
    return {
        "train_cls": peak("train_cls", "--data", data, "--out", runs / "cls", "--folds", 2, *small),
        "make_masks": peak("make_masks", "--data", data, "--cls", runs / "cls", "--out",
                           runs / "masks", *machine),
        "train_seg": peak("train_seg", "--data", data, "--masks", data / "train.csv", "--folds",
                          runs / "cls/folds.csv", "--out", runs / "seg", *small)}


def main():
    with tempfile.TemporaryDirectory() as tmp:
        few, many = (measure(Path(tmp), n) for n in (64, 512))
    for script in few:
        print(f"{script}: {few[script]:.0f} MiB for 64 images, {many[script]:.0f} MiB for 512: "
              f"ratio {many[script] / few[script]:.3f}")


if __name__ == "__main__":
    main()
