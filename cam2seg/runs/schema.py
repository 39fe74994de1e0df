"""The form that a part of a foreign file must have: one place for all that checkpoints must hold.

A form is a type, a Whole, a Number, a Several of another form, or a dict that gives each part that
must be there its form. Other parts may be there too.
"""

import math
from typing import Any, NamedTuple

import torch


class Whole(NamedTuple):
    """A whole number from least to most."""

    least: int = 0
    most: int = 10**9


class Number(NamedTuple):
    """A finite number from least to most."""

    least: float = -math.inf
    most: float = math.inf


class Several(NamedTuple):
    """A list of least to most values of one form."""

    form: Any
    least: int = 0
    most: int = 10**7


SIDE = Whole(1, 2**16)  # pixels
PREPROCESS = {"size": Several(SIDE, 2, 2), "mean": Several(Number(), 3, 3),
              "std": Several(Number(1e-9), 3, 3), "classes": Several(str, 1)}
NETWORK = {"model_args": {"num_classes": Whole(1)}, "preprocess": PREPROCESS, "model": dict}
WIDTHS = Several(Whole(0, 2**16))  # the whole numbers among model_args
PART_OF_EPOCH = {"sizes": Several(Whole(1, 10**6)), "losses": torch.Tensor, "rng": torch.Tensor}
TRAINING = {"optimizer": {"state": dict, "param_groups": Several({"lr": Number(0)})},
            "scheduler": dict, "epochs_done": Whole(),
            "best": Several({"epoch": Whole(1), "val_loss": Number()})}


def fault(value: Any, form: Any, name: str = "") -> str | None:
    """Say in one line what is wrong with a value, and None where it has the form.

    name: what the message calls the value.
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{name} {short(value)}, expected parts with names"
        for key, part in form.items():
            if key not in value:
                return f"no {key} in it, expected a whole checkpoint"
            found = fault(value[key], part, f"{name} with {key}" if name else key)
            if found:
                return found
        return None
    if isinstance(form, Several):
        return _fault_of_list(value, form, name)
    if isinstance(form, (Whole, Number)):
        kinds = int if isinstance(form, Whole) else (int, float)
        fits = isinstance(value, kinds) and not isinstance(value, bool) \
            and form.least <= value <= form.most and abs(value) < math.inf and not _too_long(value)
        return None if fits else f"{name} {short(value)}, expected {_said(form)}"
    return None if isinstance(value, form) else f"{name} {short(value)}, expected {_said(form)}"


def _too_long(value):
    """Whether a whole number is too long for a float."""
    return isinstance(value, int) and value.bit_length() > 1000


def _fault_of_list(value, form, name):
    if not isinstance(value, (list, tuple)) or not form.least <= len(value) <= form.most:
        count = form.least if form.least == form.most else f"{form.least} to {form.most}"
        return f"{name} {short(value)}, expected {count} values"
    return next((found for v in value if (found := fault(v, form.form, name))), None)


def _said(form):
    if isinstance(form, Whole):
        return f"a whole number from {form.least} to {form.most}"
    if isinstance(form, Number):
        least = "" if form.least == -math.inf else f" from {form.least}"
        return f"a finite number{least}" + ("" if form.most == math.inf else f" to {form.most}")
    return {str: "text", dict: "parts with names"}.get(form, f"a {form.__name__}")


def short(value: Any) -> str:
    """A value as a message shows it: its type where it is a tensor, and 60 characters at most."""
    if isinstance(value, torch.Tensor):
        return f"(tensor {tuple(value.shape)})"
    if _too_long(value):
        return f"(a whole number of {value.bit_length()} bits)"
    text = repr(value) if not isinstance(value, (list, tuple, dict)) or len(value) < 50 \
        else f"({type(value).__name__} of {len(value)})"
    return text if len(text) <= 60 else f"{text[:60]}..."
