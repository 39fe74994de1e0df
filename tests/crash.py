"""Kill the four scripts at random moments, resume them, compare every byte with an unbroken run.

    python tests/crash.py [--kills 32] [--seed 0] [--plan paper|other] [--only contrast]

A kill is SIGKILL after a random time or in the middle of writing a file, SIGTERM after a random
time, which lets the script save what it has, or a disk that is full from some file on and has room
again at the next attempt (fsync and posix_fallocate raise its error: nothing is filled). In between
a script is halted by SIGSTOP and goes on by SIGCONT, and all files get times in the past or the
future. log.jsonl is compared without its timings.
"""

import argparse
import errno
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from conftest import SMALL, call, write_images  # noqa: E402

TRAINED = [*SMALL, "--size", 32, 32, "--batch-size", 4, "--epochs", 3]  # the last of a flag counts
STEPS = [
    ("train_cls", ["--data", "d", "--out", "cls", "--folds", 2, *TRAINED], 0.4),
    ("make_masks", ["--data", "d", "--cls", "cls", "--out", "masks", "--target-layer", "features.5",
                    "--search", "--workers", 0, "--device", "cpu", "--batch-size", 5], 0.25),
    ("train_seg", ["--data", "d", "--masks", "d/train.csv", "--folds", "cls/folds.csv", "--out",
                   "seg", *TRAINED], 0.25),
    ("evaluate", ["--data", "d", "--folds", "cls/folds.csv", "--out", "eval",
                  "maps=masks/masks.csv", "unet=seg/oof_masks.csv"], 0.1)]
OTHER = [  # other networks, bfloat16, averaged statistics, three folds, other ways to masks
    ("train_cls", ["--data", "d", "--out", "cls", "--folds", 3, *TRAINED, "--epochs", 2, "--arch",
                   "lite0", "--amp", "--swa-bn", "average"], 0.3),
    ("make_masks", ["--data", "d", "--cls", "cls", "--out", "auto", "--method", "auto",
                    "--target-layer", "features.5", "--workers", 0, "--device", "cpu"], 0.15),
    ("make_masks", ["--data", "d", "--cls", "none", "--out", "contrast", "--method", "contrast",
                    "--review", 3], 0.15),
    ("make_masks", ["--data", "d", "--cls", "none", "--out", "pixels", "--method", "pixels"], 0.1),
    ("train_seg", ["--data", "d", "--masks", "d/train.csv", "--folds", "cls/folds.csv", "--out",
                   "seg", *TRAINED, "--epochs", 2, "--arch", "b1", "--amp"], 0.2),
    ("make_masks", ["--data", "d", "--seg", "seg", "--out", "second", "--method", "seg",
                    "--workers", 0, "--device", "cpu"], 0.1)]
PLANS = {"paper": STEPS, "other": OTHER}
KILLS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, "write", "full", "halt")
TIMINGS = ("seconds", "images_per_second", "waited")


def die_in_write(number):
    """SIGKILL at the number-th file, with half of it on the disk."""
    real, left = os.fsync, [number]

    def fsync(fd):
        left[0] -= 1
        if not left[0]:
            os.ftruncate(fd, os.fstat(fd).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        real(fd)

    os.fsync = fsync


def fill_the_disk(number):
    """No room from the number-th file on, of which half is on the disk."""
    real, left = os.fsync, [number]

    def full(fd, *more):
        left[0] -= 1
        if left[0] <= 0:
            os.ftruncate(fd, os.fstat(fd).st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd)

    os.fsync = full
    os.posix_fallocate = lambda fd, start, size: full(fd)


def named(kill):
    return getattr(kill, "name", kill)


def change_the_clock(folder, rng):
    """Give all files a time of some decade, as a clock that was set wrong does."""
    for path in folder.rglob("*"):
        moment = rng.choice([1.0, 5e8, 4e9])
        os.utime(path, (moment, moment))


def attempt(folder, script, flags, kill=None, at=None, log=None):
    """(exit status, seconds) of a script in its own process; kill: a signal after `at` seconds, or
    "write" in the at-th file that it writes, "full" for a disk that is full from then on, or "halt"
    for a rest of half a second after `at` seconds. A status below 0 is the signal that ended it."""
    began, pid = time.time(), os.fork()
    if not pid:
        os.chdir(folder)
        out = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if kill == "write":
            die_in_write(at)
        if kill == "full":
            fill_the_disk(at)
        code = 1
        try:
            code = call(script, *flags)
        finally:
            sys.stdout.flush()
            os._exit(code)
    if kill and kill not in ("write", "full"):
        while time.time() - began < at and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        try:
            os.kill(pid, signal.SIGSTOP if kill == "halt" else kill)
            if kill == "halt":
                time.sleep(0.5)
                os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:  # it was done before
            return 0, time.time() - began
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:  # the wait above took it
        return 0, time.time() - began
    return os.waitstatus_to_exitcode(status), time.time() - began


def contents(folder):
    """{path: bytes} of all that a run leaves, without what differs by nature."""
    out = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        what, name = path.read_bytes(), str(path.relative_to(folder))
        if path.name == "log.jsonl":
            what = [{k: v for k, v in json.loads(line).items() if k not in TIMINGS}
                    for line in what.decode().splitlines()]
        if path.name == "args.json":
            what = json.loads(what)
            what["args"] = {k: v for k, v in what["args"].items() if k != "resume"}
        if path.name != "steps":
            out[name] = what
    return out


def soak(folder, steps, kills, rng):
    """Number of kills that hit, by their kind; exits with a message at the first difference."""
    write_images(folder / "whole/d", 16)
    write_images(folder / "broken/d", 16)
    hit = dict.fromkeys(map(named, KILLS), 0)
    for script, flags, part in steps:
        log = folder / f"{script}.log"
        log.unlink(missing_ok=True)
        code, seconds = attempt(folder / "whole", script, flags, log=log)
        if code:
            sys.exit(f"{script} failed unbroken:\n{log.read_text()}")
        wanted, done = round(kills * part), 0
        while done < wanted:
            kill = rng.choice(KILLS)
            at = rng.randint(1, 6) if kill in ("write", "full") \
                else rng.uniform(0.02, 0.7) * seconds
            change_the_clock(folder / "broken", rng)
            code, _ = attempt(folder / "broken", script, [*flags, "--resume"], kill, at, log)
            full = kill == "full" and code == 2 and \
                os.strerror(errno.ENOSPC) in log.read_text().splitlines()[-1]
            if full or code in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
                hit[named(kill)] += 1
                done += 1
            elif code:
                sys.exit(f"{script}: exit {code} after a kill:\n{log.read_text()[-3000:]}")
            else:  # it was done before it was hit, or halted: once more from the start
                hit["halt"] += kill == "halt"
                again = attempt(folder / "broken", script, [*flags, "--overwrite"], "write", 1, log)
                hit["write"] += again[0] < 0
                done += again[0] < 0
        code, _ = attempt(folder / "broken", script, [*flags, "--resume"], log=log)
        if code:
            sys.exit(f"{script}: exit {code} at the last resume:\n{log.read_text()[-3000:]}")
        whole, broken = contents(folder / "whole"), contents(folder / "broken")
        wrong = [n for n in sorted(whole.keys() | broken.keys()) if whole.get(n) != broken.get(n)]
        if wrong:
            sys.exit(f"{script}: differ after {done} kills: {', '.join(wrong)}")
        print(f"{script}: {done} kills, {len(whole)} files equal", flush=True)
    return hit


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kills", type=int, default=32)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--plan", choices=PLANS, help="one of the two plans (default: both)")
    p.add_argument("--only", default="", help="only steps with this in their flags")
    args = p.parse_args()
    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    plans = [args.plan] if args.plan else list(PLANS)
    for plan in plans:
        steps = [s for s in PLANS[plan] if args.only in " ".join(map(str, s[1]))]
        with tempfile.TemporaryDirectory() as folder:
            hit = soak(Path(folder), steps, args.kills / len(plans), random.Random(args.seed))
        print(f"{plan}: {hit}; every file as in the unbroken run", flush=True)


if __name__ == "__main__":
    main()
