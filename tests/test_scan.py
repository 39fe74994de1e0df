"""Several processes of a run look at each image file once."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCAN = """
import os, sys
from pathlib import Path
from PIL import Image
sys.path.insert(0, {root!r})
from cam2seg.data.image_folder import list_images
from cam2seg.runs import inputs, processes

out, real = Path({out!r}), Image.open

def counted(file, *args, **kwargs):
    with open(out / "opened", "a") as log:
        log.write(file.name + "\\n")
    return real(file, *args, **kwargs)

Image.open = counted
processes.join()
sizes = inputs.scan({photos!r}, list_images({photos!r}))
(out / f"sizes{{processes.rank()}}").write_text(repr(sizes.sizes))
processes.leave()
processes.end(0)
"""


def test_two_processes_decode_each_image_once_and_both_know_its_size(photos, tmp_path):
    script = tmp_path / "scan.py"
    script.write_text(SCAN.format(root=str(ROOT), out=str(tmp_path), photos=str(photos)))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone",
                           "--nproc-per-node", "2", str(script)], text=True, timeout=200,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == 0, done.stderr
    opened = (tmp_path / "opened").read_text().splitlines()
    assert sorted(opened) == [str(photos / f"{i:02d}.jpg") for i in range(12)]
    sizes = repr({f"{i:02d}.jpg": (40, 40) for i in range(12)})
    assert [(tmp_path / f"sizes{rank}").read_text() for rank in (0, 1)] == [sizes] * 2
