"""The model.json of make_masks.py --method contrast and auto: what the labels of a set of images
chose, written beside the masks and read back for other images (--fitted).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.errors import DataError
from ..methods import auto, contrast, texture
from ..runs.folder import read_json, write_json
from .auto_masks import AutoModel
from .label_only import ContrastModel

FILE = "model.json"
FILTERS = {contrast.describe(filter): filter for filter in contrast.FILTERS}


def given(args: argparse.Namespace, classes: Sequence[str]) -> ContrastModel | AutoModel | None:
    """The model by --fitted; None without that flag. Raises DataError."""
    return read(args.fitted, args.method, classes) if args.fitted else None


def files(args: argparse.Namespace) -> list[Path]:
    """The files that `given` reads."""
    return [args.fitted / FILE] if args.fitted else []


def write(folder: Path, classes: Sequence[str],
          model: ContrastModel | AutoModel) -> ContrastModel | AutoModel:
    """Write the model of these classes to `folder`, filters by their names, and return it."""
    is_auto = isinstance(model, AutoModel)
    alone = model.contrast if is_auto else model
    scores = alone.scores.astype(object)
    scores[~np.isfinite(alone.scores)] = None  # JSON has no infinity
    plain = {"filters": [f and contrast.describe(f) for f in alone.filters], "signs": alone.signs,
             "scores": scores.tolist(), "otsu": [o.tolist() for o in alone.otsu],
             "texture": alone.texture and [part.tolist() for part in alone.texture]}
    value = {"method": "auto" if is_auto else "contrast", "classes": classes, "contrast": plain}
    if is_auto:
        products = [[contrast.describe(filter), sign] for filter, sign in model.filters]
        value |= {**model._asdict(), "contrast": plain, "filters": products}
    write_json(folder / FILE, value)
    return model


def read(folder: Path, method: str, classes: Sequence[str]) -> ContrastModel | AutoModel:
    """The model of --method `method` in the folder of a run. Raises DataError unless it is one of
    these classes."""
    path = folder / FILE
    found = read_json(path)
    of = (found.get("method"), found.get("classes")) if isinstance(found, dict) else (None, None)
    if of != (method, list(classes)):
        raise DataError(f"{path}: a model of --method {of[0]} and classes {of[1]}, expected "
                        f"--method {method} and classes {list(classes)}")
    try:
        alone = _contrast_model(found["contrast"], len(classes))
        return alone if method == "contrast" else _auto_model(found, alone, len(classes))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}), expected a file "
                        "written by make_masks.py") from error


def _contrast_model(plain, C):
    scores = _array(plain["scores"], (C, len(FILTERS), 2))
    gaussians = plain["texture"]
    if gaussians is not None:
        (mu, S), D = gaussians, 3 * len(texture.TEXTURE)
        gaussians = _array(mu, (C, D)), _array(S, (C, D, D))
        np.linalg.cholesky(S)  # raises a ValueError where S is no covariance
    return ContrastModel(
        filters=[None if f is None else FILTERS[f] for f in _list(plain["filters"], C)],
        signs=[_sign(s) for s in _list(plain["signs"], C)],
        scores=np.where(np.isnan(scores), -np.inf, scores),
        otsu=[_array(o, (len(o),)) for o in _list(plain["otsu"], C)], texture=gaussians)


def _auto_model(plain, alone, C):
    choices = _list(plain["choices"], C)
    if not set(choices) <= set(auto.CHOICES):
        raise ValueError(f"choices {choices}")
    numbers = {k: _array(plain[k], (C,)) for k in ("alone", "product", "classifier")}
    return AutoModel(
        contrast=alone,
        filters=[(FILTERS[filter], _sign(s)) for filter, s in _list(plain["filters"], C)],
        choices=choices,
        **{k: [None if np.isnan(v) else v for v in values.tolist()]
           for k, values in numbers.items()})


def _list(values, length):
    if not isinstance(values, list) or len(values) != length:
        raise ValueError(f"expected a list of {length}")
    return values


def _array(values, shape):
    """A float64 array in which None becomes NaN."""
    out = np.array(values, np.float64)
    if out.shape != shape:
        raise ValueError(f"shape {out.shape}, expected {shape}")
    return out


def _sign(value):
    if value not in (1, -1):
        raise ValueError(f"sign {value}")
    return value
