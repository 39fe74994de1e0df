"""Which classes occur together in images: sets of classes, and the rules between them [K-3]."""

import itertools

import numpy as np


def class_sets(y: np.ndarray, largest: int) -> dict[tuple[int, ...], int]:
    """How many images have all classes of a set, {(c, ...): images}, from labels y (N, C).

    The sets are those of up to `largest` classes that at least one image has, which are what
    FP-growth finds with a least support of one image (DEV-66). Where no image has a set, none has
    a larger one, so that the sets grow by one class at a time.
    """
    y, found = np.asarray(y, bool), {}
    grown = {(): np.ones(len(y), bool)}
    for _ in range(largest):
        grown = {(*s, c): has & y[:, c] for s, has in grown.items()
                 for c in range(s[-1] + 1 if s else 0, y.shape[1])}
        grown = {s: has for s, has in grown.items() if has.any()}
        found |= {s: int(has.sum()) for s, has in grown.items()}
    return found


def class_rules(y: np.ndarray, largest: int) -> list[tuple]:
    """The rules "an image with all classes A also has all classes B" of labels y (N, C)  [K-3].

    Every set of class_sets with two classes or more is split into A and B in all ways. Returns rows
    (A, B, images, support, confidence, lift), the highest lift first:
        support = #(A and B) / N,  confidence = #(A and B) / #A,  lift = confidence / (#B / N).
    A lift above 1 says that A and B occur together more often than if they were independent.
    """
    count, N, rows = class_sets(y, largest), len(y), []
    for union, n in count.items():
        for size in range(1, len(union)):
            for A in itertools.combinations(union, size):
                B = tuple(c for c in union if c not in A)
                rows.append((A, B, n, n / N, n / count[A], n * N / (count[A] * count[B])))
    return sorted(rows, key=lambda row: -row[5])
