"""What evaluate.py does to masks before the scores: another size, thresholds, components, hulls.

`args` are its flags, and `work` is its Work. Nothing here loads torch.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import masks
from ..data.dataset import resize_mask
from ..data.errors import DataError
from ..runs.progress import Progress
from . import finished_masks, kept_maps


class Step(NamedTuple):
    """Processed masks that are scored beside the given ones."""

    name: str
    threshold: Any  # "search", C numbers, or None for the masks as they are given
    least: Any  # "search", or C least sizes of a component
    hull: bool


def asked(args: argparse.Namespace) -> bool:
    """Whether the flags ask for processed masks."""
    return bool(args.threshold or args.least_component or args.hull or args.output_size
                or args.sample)


def check(args: argparse.Namespace, work: Any) -> tuple | None:
    """The header and rows of --sample, or None. Raises DataError for flags that do not fit."""
    C = len(work.truth.classes)
    for flag in ("threshold", "least_component"):
        given, said = getattr(args, flag), f"--{flag.replace('_', '-')}"
        if given == "search" and len(set(work.fold.tolist())) < 2:
            raise DataError(f"{said} search: expected labels, and --folds with two folds or more "
                            "of the images")
        if isinstance(given, list) and len(given) not in (1, C):
            raise DataError(f"{said}: {len(given)} numbers, expected one or {C}, for "
                            f"{', '.join(work.truth.classes)}")
    taken = {f"{title}, {step.name}" for title in work.given for step in steps(args, C)}
    if taken & {*work.given}:
        raise DataError(f"'{min(taken & {*work.given})}' is the name of processed masks: name that "
                        "CSV otherwise")
    return finished_masks.sample_rows(args.sample, work) if args.sample else None


def open_probabilities(args: argparse.Namespace, work: Any) -> dict[str, Callable]:
    """The probabilities {title: function} that --threshold is applied to; see kept_maps."""
    scored = set(work.truth.names)
    return {title: kept_maps.probabilities(path, work.truth.classes,
                                           [n for n in work.given[title].names if n in scored])
            for title, path in work.paths.items() if args.threshold}


def steps(args: argparse.Namespace, classes: int) -> list[Step]:
    """The steps of the processing that are scored."""
    def each(given):
        return given * classes if isinstance(given, list) and len(given) == 1 else given

    t, n = each(args.threshold), each(args.least_component)
    every = [0] * classes
    return [Step("threshold", t, every, False)] * (t is not None) + [
        Step("components", t, n, False)] * (n is not None) + [
        Step("hulls", t, every if n is None else n, True)] * args.hull


def at_size(work: Any, size: tuple[int, int], report: Callable) -> Any:
    """The same Work with the true and the given masks at another size (H, W).

    A pixel of the new size is mask where at least half of its area is (DEV-33, DEV-65).
    """
    def resized(what, rles):
        out = {}
        for name, c in Progress(len(rles), f"{what} at {size[0]} x {size[1]}", report).over(rles):
            if rles[name, c] and name in work.sizes:
                mask = resize_mask(masks.rle_decode(rles[name, c], work.sizes[name]), size, 0.5)
                if mask.any():
                    out[name, c] = masks.rle_encode(mask)
        return out

    return work._replace(
        truth=work.truth._replace(rles=resized("truth", work.truth.rles)),
        given={title: found._replace(rles=resized(title, found.rles))
               for title, found in work.given.items()},
        sizes=dict.fromkeys(work.sizes, tuple(size)))


def process(args: argparse.Namespace, work: Any, order: tuple | None,
            probabilities: Mapping[str, Callable], report: Callable) -> tuple[Any, dict]:
    """Write processed_1.csv, processed_2.csv and so on, the last step of each CSV; all of it at the
    size of --output-size.

    order: what `check` returned; probabilities: those of open_probabilities. Returns Work with the
    masks of each step beside the given ones, and what was searched:
    {"threshold": {title: {"all": C numbers, fold: C numbers, ...}}, "least": the same}.
    """
    given, searched, C = {}, {"threshold": {}, "least": {}}, len(work.truth.classes)
    if not asked(args):
        return work, searched
    if args.output_size:
        work = at_size(work, args.output_size, report)
    for number, (title, found) in enumerate(work.given.items(), 1):
        drawn = finished_masks.Drawn(found.rles, probabilities.get(title))
        given[title], rles = found, {k: v for k, v in found.rles.items() if k[0] in work.sizes}
        for step in steps(args, C):
            by_fold, on_all = _chosen(work, drawn, step, report)
            rows = {"all": on_all, **by_fold}
            for part, (name, asked_for) in enumerate((("threshold", step.threshold),
                                                      ("least", step.least))):
                if asked_for == "search":
                    searched[name][f"{title}, {step.name}"] = {
                        k: [pair[part] for pair in pairs] for k, pairs in rows.items()}
            rles = finished_masks.finish(work, drawn, by_fold, step.hull, report)
            given[f"{title}, {step.name}"] = found._replace(rles=rles)
        finished_masks.write(Path(args.out) / f"processed_{number}.csv", work, rles, order)
    return work._replace(given=given), searched


def _chosen(work, drawn, step, report):
    """{fold: C pairs (threshold, least size)} of a step, and those for images of no fold."""
    C = len(work.truth.classes)
    thresholds = [finished_masks.THRESHOLDS] * C if step.threshold == "search" else [
        [t] for t in step.threshold or [None] * C]
    least = [finished_masks.size_grid(work.sizes)] * C if step.least == "search" else [
        [n] for n in step.least]
    tried = list(zip(thresholds, least, strict=True))
    if "search" in (step.threshold, step.least):
        return finished_masks.search(work, drawn, tried, step.hull, report)
    pairs = [(t, n) for (t,), (n,) in tried]
    return dict.fromkeys(np.unique(work.fold).tolist(), pairs), pairs
