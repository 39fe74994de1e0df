"""Small wrong edits, one at a time in a copy of the project; each must turn a test red.

    make mutants

Prints every edit with the test that caught it; exits 1 if one survives.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
CAM, MODELS, MASKS, METRICS, AVERAGING = (
    f"cam2seg/{name}.py" for name in ("cam", "models", "masks", "metrics", "averaging"))
LABELS, FOLDS, IMAGES, DATASET, FILES = (
    f"cam2seg/data/{name}.py" for name in ("labels", "folds", "images", "dataset", "files"))
BATCHES, EPOCHS, FIT, CROSS, MAPS = (
    f"cam2seg/training/{name}.py"
    for name in ("batches", "epochs", "fit", "cross_validation", "held_out_maps"))
CHECKPOINTS = "cam2seg/runs/checkpoints.py"
CONTRAST, TEXTURE, LABEL_ONLY = (
    "cam2seg/methods/contrast.py", "cam2seg/methods/texture.py", "cam2seg/training/label_only.py")

MUTANTS = [  # what is wrong, file, the line's text, its replacement
    ("sum for mean in alpha", CAM, "alpha = G.mean(dim=(2, 3)", "alpha = G.sum(dim=(2, 3)"),
    ("no ReLU of the map", CAM, "return F.relu((alpha * A).sum(dim=1))",
     "return (alpha * A).sum(dim=1)"),
    ("ReLU of each channel", CAM, "return F.relu((alpha * A).sum(dim=1))",
     "return F.relu(alpha * A).sum(dim=1)"),
    ("denominator dropped", CAM, "denominator = 2 + S * G", "denominator = torch.ones_like(G)"),
    ("epsilon in the denominator", CAM, "denominator = 2 + S * G",
     "denominator = 2 + S * G + 1e-6"),
    ("sum of A times G", CAM, "denominator = 2 + S * G",
     "denominator = 2 + (A * G).sum(dim=(2, 3), keepdim=True)"),
    ("mean of A", CAM, "S = A.sum(dim=(2, 3)", "S = A.mean(dim=(2, 3)"),
    ("no ReLU of G", CAM, "(alpha * F.relu(G))", "(alpha * G)"),
    ("score after the sigmoid", CAM, "torch.autograd.grad(logits,",
     "torch.autograd.grad(logits.sigmoid(),"),
    ("activation not copied", CAM, "return captured[-1].clone()", "return captured[-1]"),
    ("hooks left behind", CAM, "handle.remove()", "pass"),
    ("mode left behind", CAM, "module.training = mode", "pass"),
    ("guided gate dropped", CAM, "F.relu(R) * gate", "F.relu(R)"),
    ("guided ReLU dropped", CAM, "F.relu(R) * gate", "R * gate"),
    ("mirror not undone", CAM, "maps_of(scaled(mirror, f)).flip(-1)", "maps_of(scaled(mirror, f))"),
    ("raw image not normalised again", CAM, "f * (view + shift) - shift", "f * (view + shift)"),
    ("alphas of the authors unscaled", CAM, "    if normalized:", "    if False:"),
    ("factor forgotten", CAM, "SMOOTH_FACTORS = (1.0, 1.1, 0.9)",
     "SMOOTH_FACTORS = (1.0, 1.1, 1.0)"),
    ("minimum kept", CAM, "(maps - low) / torch", "maps / torch"),
    ("corners aligned", CAM, "align_corners=False", "align_corners=True"),
    ("max pooling in the head", MODELS, ".mean(dim=(2, 3)))", ".amax(dim=(2, 3)))"),
    ("skip of the wrong stage", MODELS, "(1, 2, 3, 5), 7", "(1, 2, 3, 4), 7"),
    ("SiLU left in lite0", MODELS, "isinstance(child, nn.SiLU)", "isinstance(child, nn.ReLU)"),
    ("eps of lite0", MODELS, "eps=1e-3", "eps=1e-5"),
    ("input of lite0", MODELS, "127 / 255", "128 / 255"),
    ("order of lite0's tensors unchecked", MODELS, "if [k.rpartition(\".\")[2] for k in theirs] !=",
     "if False and [k.rpartition(\".\")[2] for k in theirs] !="),
    ("mean of logits", MODELS, "member(x).float().sigmoid()", "member(x).float()"),
    ("last epochs for best", FIT, 'key=lambda b: (b["val_loss"], b["epoch"])',
     'key=lambda b: -b["epoch"]'),
    ("plateau one epoch late", FIT, "patience=3", "patience=4"),
    ("epoch not seeded", FIT,
     "seed_torch(*seed, *([] if processes.is_first() else [processes.rank()]))", "pass"),
    ("fold not seeded", CROSS, "seed_torch(plan.seed, k)", "seed_torch(plan.seed)"),
    ("loss of the first output alone", EPOCHS, "settings.loss(as_float32(outputs),",
     "settings.loss(as_float32(outputs[0] if isinstance(outputs, tuple) else outputs),"),
    ("BatchNorm pass in eval mode", AVERAGING, "        model.train()\n        for x in",
     "        model.eval()\n        for x in"),
    ("batches weigh alike", AVERAGING, "m.momentum = len(x) / n", "m.momentum = 0.1"),
    ("running statistics kept", AVERAGING, "m.reset_running_stats()", "pass"),
    ("states summed", AVERAGING, "for s in states]).mean(dim=0)", "for s in states]).sum(dim=0)"),
    ("pickles run", CHECKPOINTS, 'map_location="cpu", weights_only=True',
     'map_location="cpu", weights_only=False'),
    ("checkpoint half written", FILES, 'tmp = Path(f"{path}.tmp")', "tmp = Path(path)"),
    ("order the same in each epoch", BATCHES, "(self.seed, self.epoch)", "self.seed"),
    ("not centred", BATCHES, "x.sub_(mean).div_(std)", "x.div_(std)"),
    ("rows for columns", MASKS, "mask.T.ravel()", "mask.ravel()"),
    ("run starts off by one", MASKS, "np.flatnonzero(np.diff(flat)) + 1",
     "np.flatnonzero(np.diff(flat))"),
    ("decoded by rows", MASKS, "reshape(W, H).T", "reshape(H, W)"),
    ("above, not at, the threshold", MASKS, ">= float(threshold)", "> float(threshold)"),
    ("area above, not at, the bound", MASKS, "mask.sum() >= min_seg_len",
     "mask.sum() > min_seg_len"),
    ("empties are 0", METRICS, "np.where(both_empty, empty, out)", "out"),
    ("no 2 in Dice", METRICS, "_ratio(2 * inter", "_ratio(inter"),
    ("mean of class means for present", METRICS, '(shown, _mean(pairs[present]))',
     '(shown, _mean(np.array([v for v in shown if v is not None])))'),
    ("ties ranked from the top", METRICS, "np.cumsum(size) - (size - 1) / 2", "np.cumsum(size)"),
    ("below for above", METRICS, 'side="right"', 'side="left"'),
    ("confidence ignored", METRICS, "(probs >= confidence) & (pred", "(pred"),
    ("chosen on its own fold", METRICS, "rest = folds != k", "rest = folds == k"),
    ("folds from the file's order", FOLDS, "np.random.default_rng(seed).permutation(len(y))",
     "np.arange(len(y))"),
    ("not stratified", FOLDS, "need = lacks_images if c is None else lacks_class[:, c]",
     "need = lacks_images"),
    ("doubled rows taken", LABELS, "        if key in rows:", "        if False:"),
    ("unlisted images dropped", LABELS, "if with_masks and images and not complete", "if False"),
    ("flip of the image alone", DATASET, "np.flip(target, axis + 1) if has_masks else target",
     "target"),
    ("low byte of 16 bits", IMAGES, ".astype(np.int64) >> 8", ".astype(np.int64) & 255"),
    ("flips forget the epoch", DATASET, "(self.seed, epoch, index)", "(self.seed, index)"),
    ("model of another fold", MAPS, "else [classifiers.nets[k]]",
     "else [classifiers.nets[max(classifiers.nets) - k]]"),
    ("trained on the held-out fold", CROSS, "for part in (plan.fold != k, plan.fold == k)",
     "for part in (plan.fold == k, plan.fold == k)"),
    ("no BatchNorm pass", "train_cls.py", 'if args.swa_bn == "update"', "if False"),
    ("masks below the threshold", "train_seg.py", "masks.binarize(heat,",
     "masks.binarize(1 - heat,"),
    ("an area at the bound kept by --strict-len", "make_masks.py",
     "args.min_seg_len + args.strict_len", "args.min_seg_len"),
    ("std over mean", MAPS, 'for k in ("mean", "std"))',
     'for k in ("std", "mean"))'),
    ("labels leak through the gate", "make_masks.py", 'if args.gate == "labels" else probs',
     'if labels is not None else probs'),
    ("sign of the skewness flipped", CONTRAST, "mean > 0 and auc > 0.5", "mean < 0 and auc > 0.5"),
    ("clean images are no negatives", CONTRAST, "Q = Q if Q.sum() >= ENOUGH else ~labels[:, c]",
     "Q = ~labels[:, c]"),
    ("images with several labels are positives", CONTRAST, "P, Q = labels[:, c] & one, clean",
     "P, Q = labels[:, c], clean"),
    ("a filter for a class that none tells", CONTRAST, "np.where(found, best // 2, -1)",
     "best // 2"),
    ("labels ignored in the names of regions", TEXTURE, "for c in np.flatnonzero(y):\n        L =",
     "for c in range(len(mu)):\n        L ="),
    ("power 1 in the names of regions", TEXTURE, "log.max(axis=0)) / len(TEXTURE))",
     "log.max(axis=0)))"),
    ("determinant dropped", TEXTURE, " - L.diagonal().log().sum()", ""),
    ("median unweighted", CONTRAST, "q.flatten()[order].cumsum(dim=0)",
     "torch.ones_like(q).flatten().cumsum(dim=0)"),
    ("ground of all regions", CONTRAST, "blur(w * x, l) / blur(w, l)", "blur(x, l)"),
    ("threshold of the image alone", CONTRAST, "np.sqrt(o * np.median(class_o))", "np.sqrt(o * o)"),
    ("highest component dropped", CONTRAST, "min(SEED, peak[1:].max())", "SEED"),
    ("doubt laid over the masks", CONTRAST, "(best > DOUBT) & ~masks.any(axis=0)", "best > DOUBT"),
    ("a pixel for two classes", CONTRAST, "(u[c] > 1) & (u[c] == best)", "u[c] > 1"),
    ("rows of the blur not summed to 1", CONTRAST, "return K / K.sum(dim=1, keepdim=True)",
     "return K / K.sum(dim=1).max()"),
    ("thresholds of images with several labels", LABEL_ONLY, "rows = np.flatnonzero(count == 1)",
     "rows = np.flatnonzero(count >= 1)"),
    ("texture of the mask alone", LABEL_ONLY, "for part in (region, ~region)]",
     "for part in (region, region)]"),
    ("masks of classes without the label", LABEL_ONLY,
     "    for c in np.flatnonzero(y):\n        if",
     "    for c in range(len(y)):\n        if"),
    ("true masks shown to the contrast", "make_masks.py",
     "label_only.make_masks(log_image, work.names, y, model, report)",
     "(work.labels.rles or {}, {})"),
    ("labels from the true masks", "make_masks.py", "label_only.fit(log_image, y, report)",
     "label_only.fit(log_image, y if work.labels.rles is None else ~y, report)"),
    ("components joined by their sides alone", MASKS, "(row - 1) * wide + start)",
     "(row - 1) * wide + start + 1)"),
]


SCRIPTS = ["tests/test_label_only.py", "tests/test_cli.py", "tests/test_sizes_and_flags.py"]
OTHER_TESTS = {MODELS: ["tests/test_models.py", "tests/test_lite0.py"], LABELS: ["tests/test_data.py"],
               FOLDS: ["tests/test_data.py"], DATASET: ["tests/test_images.py"], MAPS: SCRIPTS,
               FILES: ["tests/test_runs.py"], CONTRAST: ["tests/test_contrast.py"],
               TEXTURE: ["tests/test_contrast.py"], LABEL_ONLY: ["tests/test_label_only.py"]}


def tests_of(path):
    """The test files that shall notice an edit of a file: those of its folder or its own."""
    if path in OTHER_TESTS:
        return OTHER_TESTS[path]
    if "/" not in path:
        return SCRIPTS
    folder, name = Path(path).parts[-2:]
    what = name.removesuffix(".py") if folder in ("cam2seg", "data") else folder
    return [f"tests/test_{what}.py"]


def _left_out(folder, names):
    """What the copy is made without: the user's runs and data, not the package's folders."""
    top = {"runs", "data", "docs"} if Path(folder) == ROOT else set()
    return [n for n in names if n.startswith(".") or n in top]


def killer(mutant):
    """The first test that fails with the edit, or None."""
    what, path, old, new = mutant
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp) / "copy"
        shutil.copytree(ROOT, copy, ignore=_left_out)
        text = (copy / path).read_text()
        if text.count(old) != 1:
            sys.exit(f"{what}: '{old}' is not once in {path}: bring the list up to date")
        (copy / path).write_text(text.replace(old, new))
        done = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p",
                               "no:cacheprovider", *tests_of(path)], cwd=copy, text=True,
                              capture_output=True)
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.M)
    return found and found[1]


def main():
    with ThreadPoolExecutor(2) as pool:
        survivors = 0
        for mutant, test in zip(MUTANTS, pool.map(killer, MUTANTS), strict=True):
            survivors += test is None
            print(f"{mutant[1]}: {mutant[0]}: {test or 'SURVIVES'}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
