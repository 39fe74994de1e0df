"""Rows of benchmarks/speed.py: run lengths, and the scores of masks."""

import warnings

import numpy as np
from speed import in_turn, package, row

from cam2seg import masks, metrics

SIZE, COUNT, SEVERSTAL = (256, 1600), 40, 12568


def blobs(rng):
    """A mask bool (H, W) of one to five ellipses."""
    r, c = np.mgrid[:SIZE[0], :SIZE[1]]
    out = np.zeros(SIZE, bool)
    for _ in range(rng.integers(1, 6)):
        y, x, a, b = (rng.integers(*span) for span in ((0, SIZE[0]), (0, SIZE[1]), (8, 60),
                                                       (8, 120)))
        out |= ((r - y) / a) ** 2 + ((c - x) / b) ** 2 < 1
    return out


def kernel_encode(mask):
    """As the kernels that Kaggle's contestants share write run lengths."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def kernel_decode(text, shape):
    """As these kernels read them."""
    s = text.split()
    starts, lengths = (np.asarray(x, dtype=int) for x in (s[0:][::2], s[1:][::2]))
    starts -= 1
    image = np.zeros(shape[0] * shape[1], dtype=np.uint8)
    for low, high in zip(starts, starts + lengths, strict=True):
        image[low:high] = 1
    return image.reshape(shape[::-1]).T


def by_pixels(truth, pred):
    """The counts of one pair, both masks decoded and compared pixel by pixel."""
    t, p = masks.rle_decode(truth, SIZE), masks.rle_decode(pred, SIZE)
    return (t & p).sum(), t.sum(), p.sum()


def drawn_pairs(rng, texts, share=0.13):
    """Run lengths of truth and prediction of SEVERSTAL images and four classes, each one of the
    `texts`; about as many pairs have a true mask as in Severstal, and half as many more have a
    predicted one."""
    names = [f"{i}.jpg" for i in range(SEVERSTAL)]
    keys = [(n, c) for n in names for c in range(4)]
    truth = {k: texts[rng.integers(len(texts))] for k in keys if rng.random() < share}
    pred = {k: texts[rng.integers(len(texts))] for k in keys
            if k in truth or rng.random() < share / 2}
    return names, keys, truth, pred


def scores_by_pixels(keys, truth, pred):
    counts = np.array([by_pixels(truth.get(k, ""), pred.get(k, "")) for k in keys])
    return metrics.mask_scores(*counts.T.reshape(3, -1, 4))


def rows(args):
    warnings.simplefilter("ignore")  # pycocotools' of NumPy 2
    rng = np.random.default_rng(0)
    drawn = [blobs(rng) for _ in range(COUNT)]
    texts = [masks.rle_encode(m) for m in drawn]
    works = {"encode": lambda: [masks.rle_encode(m) for m in drawn],
             "kernel_encode": lambda: [kernel_encode(m) for m in drawn],
             "decode": lambda: [masks.rle_decode(t, SIZE) for t in texts],
             "kernel_decode": lambda: [kernel_decode(t, SIZE) for t in texts]}
    coco = package("pycocotools.mask")
    if coco:
        packed = [coco.encode(np.asfortranarray(m.view(np.uint8))) for m in drawn]
        works["coco_encode"] = lambda: [coco.encode(np.asfortranarray(m.view(np.uint8)))
                                        for m in drawn]
        works["coco_decode"] = lambda: [coco.decode(p) for p in packed]
    s = in_turn(works, 7 * args.rounds)
    out = []
    for work in ("encode", "decode"):
        what = f"{work} a mask, 256 x 1600"
        out.append(row(what, "Kaggle kernel", s[work] / COUNT, s[f"kernel_{work}"] / COUNT, 1 / 3))
        if coco:
            out.append(row(what, "pycocotools", s[work] / COUNT, s[f"coco_{work}"] / COUNT, 2))
    names, keys, truth, pred = drawn_pairs(rng, [masks.rle_encode(blobs(rng)) for _ in range(200)])
    sizes = dict.fromkeys(names, SIZE)
    def with_background():
        counts = metrics.counts_with_background(names, truth, pred, sizes, 4)
        return metrics.mask_scores(*counts[:, :, 1:]), metrics.iou_with_background(counts)

    s = in_turn({"score": lambda: metrics.mask_scores(
                     *metrics.mask_counts(names, truth, pred, sizes, 4)),
                 "background": with_background,
                 "pixels": lambda: scores_by_pixels(keys, truth, pred)}, min(3, args.rounds))
    return [*out, row("scores of 12,568 x 4 masks", "decode, compare pixels", s["score"],
                      s["pixels"], 1 / 30),
            row("the same with the background, as evaluate.py", "decode, compare pixels, without "
                "background", s["background"], s["pixels"])]
