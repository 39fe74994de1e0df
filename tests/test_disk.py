"""The tests take little of the disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import conftest

ROOT = Path(__file__).parent.parent


def test_a_file_counts_by_its_blocks_and_once(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    before = conftest.bytes_below(tmp_path)
    (tmp_path / "a/b/whole").write_bytes(bytes(range(256)) * 4096)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10**9)
    os.link(tmp_path / "a/b/whole", tmp_path / "again")
    os.symlink("/usr", tmp_path / "link")
    assert before == 0 and 2**20 <= conftest.bytes_below(tmp_path) < 2**20 + 2**16


def test_a_test_that_takes_too_much_fails(tmp_path):
    """The fixture measures before the files of the test are deleted."""
    (tmp_path / "test_large.py").write_text(
        "import conftest\n"
        "def test_small(tmp_path):\n    conftest.MOST_BYTES = 3 * 10**6\n"
        "    (tmp_path / 'a').write_bytes(bytes(2 * 10**6))\n"
        "def test_as_small(tmp_path):\n    (tmp_path / 'a').write_bytes(bytes(2 * 10**6))\n"
        "def test_large(tmp_path):\n    (tmp_path / 'a').write_bytes(bytes(4 * 10**6))\n")
    shutil.copy(conftest.__file__, tmp_path)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml",
                           "--rootdir", tmp_path, "--basetemp", tmp_path / "base", tmp_path],
                          cwd=ROOT, capture_output=True, text=True)
    assert "\n" not in done.stdout.partition("...E")[0], done.stdout  # the others pass
    assert "AssertionError: 4 MB of temporary files" in done.stdout
    assert "at most 4 MB of temporary files (test_large.py::test_large)" in done.stdout
