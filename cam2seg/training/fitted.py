"""The model.json of make_masks.py --method contrast, pixels and auto: what the labels of a set of
images chose, written beside the masks and read back for other images (--fitted).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..data.errors import DataError
from ..methods import auto, contrast, pixels, texture
from ..runs.folder import read_json, write_json
from .auto_masks import AutoModel
from .label_only import ContrastModel
from .pixel_masks import PixelModel

Model = ContrastModel | PixelModel | AutoModel
METHODS = {ContrastModel: "contrast", PixelModel: "pixels", AutoModel: "auto"}
FILE = "model.json"
FILTERS = {contrast.describe(filter): filter for filter in contrast.FILTERS}


def given(args: argparse.Namespace, classes: Sequence[str]) -> Model | None:
    """The model by --fitted; None without that flag. Raises DataError."""
    return read(args.fitted, args.method, classes) if args.fitted else None


def files(args: argparse.Namespace) -> list[Path]:
    """The files that `given` reads."""
    return [args.fitted / FILE] if args.fitted else []


def write(folder: Path, classes: Sequence[str], model: Model) -> Model:
    """Write the model of these classes to `folder`, filters by their names, and return it."""
    value = {"method": METHODS[type(model)], "classes": classes}
    simple = model.pixels if isinstance(model, AutoModel) else model
    value["contrast"] = _plain(simple.contrast if isinstance(simple, PixelModel) else simple)
    if isinstance(simple, PixelModel):
        networks = {str(k): {name: _lists(part) for name, part in network._asdict().items()}
                    for k, network in simple.networks.items()}
        value["pixels"] = {**simple._asdict(), "networks": networks}
        del value["pixels"]["contrast"]
    if isinstance(model, AutoModel):
        products = [[contrast.describe(filter), sign] for filter, sign in model.filters]
        value |= {**model._asdict(), "pixels": value["pixels"], "filters": products}
    write_json(folder / FILE, value)
    return model


def _plain(alone):
    scores = alone.scores.astype(object)
    scores[~np.isfinite(alone.scores)] = None  # JSON has no infinity
    return {"filters": [f and contrast.describe(f) for f in alone.filters], "signs": alone.signs,
            "scores": scores.tolist(), "otsu": [o.tolist() for o in alone.otsu],
            "texture": alone.texture and [part.tolist() for part in alone.texture]}


def _lists(part):
    return [p.tolist() for p in part] if isinstance(part, list) else part.tolist()


def read(folder: Path, method: str, classes: Sequence[str]) -> Model:
    """The model of --method `method` in the folder of a run. Raises DataError unless it is one of
    these classes."""
    path = folder / FILE
    found = read_json(path)
    of = (found.get("method"), found.get("classes")) if isinstance(found, dict) else (None, None)
    if of != (method, list(classes)):
        raise DataError(f"{path}: a model of --method {of[0]} and classes {of[1]}, expected "
                        f"--method {method} and classes {list(classes)}")
    try:
        C = len(classes)
        model = _contrast_model(found["contrast"], C)
        if method != "contrast":
            model = _pixel_model(found["pixels"], model, C)
        return _auto_model(found, model, C) if method == "auto" else model
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}), expected a file "
                        "written by make_masks.py") from error


def _contrast_model(plain, C):
    scores = _array(plain["scores"], (C, len(FILTERS), 2))
    gaussians = plain["texture"]
    if gaussians is not None:
        (mu, S), D = gaussians, 3 * len(texture.TEXTURE)
        gaussians = _array(mu, (C, D)), _array(S, (C, D, D))
        if not all(np.isfinite(part).all() for part in gaussians):
            raise ValueError("a Gaussian that is not finite")
        np.linalg.cholesky(S)  # raises a ValueError where S is no covariance
    otsu = [_array(o, (len(o),)) for o in _list(plain["otsu"], C)]
    if any(np.isnan(o).any() for o in otsu):
        raise ValueError("a threshold that is no number")
    return ContrastModel(
        filters=[None if f is None else FILTERS[f] for f in _list(plain["filters"], C)],
        signs=[_sign(s) for s in _list(plain["signs"], C)],
        scores=np.where(np.isnan(scores), -np.inf, scores),
        otsu=otsu, texture=gaussians)


def _pixel_model(plain, alone, C):
    sizes = (pixels.DESCRIPTORS, pixels.WIDTH, pixels.WIDTH, C)
    networks = {}
    for k, part in plain["networks"].items():
        networks[int(k)] = pixels.Network(
            _tensor(part["scale"], sizes[:1]),
            [_tensor(w, at) for w, at in zip(part["weights"], zip(sizes, sizes[1:]), strict=True)],
            [_tensor(b, (n,)) for b, n in zip(part["biases"], sizes[1:], strict=True)])
    choices = _choices(plain, C, ("contrast", "network") if networks else ("contrast",))
    told = {k: _array(plain[k], (C,)).tolist() for k in ("alone", "network")}
    return PixelModel(contrast=alone, networks=networks, choices=choices, **told)


def _auto_model(plain, model, C):
    choices = _choices(plain, C, auto.CHOICES)
    if "network" in choices and not model.networks:
        raise ValueError(f"choices {choices} without a network")
    numbers = {k: _array(plain[k], (C,)) for k in ("product", "classifier")}
    return AutoModel(
        pixels=model,
        filters=[(FILTERS[filter], _sign(s)) for filter, s in _list(plain["filters"], C)],
        lost=[p if p is None else _array(p, (2,)).tolist()
              for p in _list(plain.get("lost", [None] * C), C)],  # earlier files have none
        choices=choices,
        **{k: [None if np.isnan(v) else v for v in values.tolist()]
           for k, values in numbers.items()})


def _choices(plain, C, known):
    choices = _list(plain["choices"], C)
    if not set(choices) <= set(known):
        raise ValueError(f"choices {choices}")
    return choices


def _tensor(values, shape):
    found = torch.from_numpy(_array(values, shape)).float()
    if not found.isfinite().all():
        raise ValueError("a weight that is not finite")
    return found


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
