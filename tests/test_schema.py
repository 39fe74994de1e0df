"""What a part of a foreign file must look like, and what is said of one that does not."""

import math

import numpy as np
import pytest
import torch

from cam2seg.data.errors import DataError
from cam2seg.data.stored_maps import MapStore
from cam2seg.runs.schema import Number, Several, Whole, fault

FORM = {"a": Whole(1, 9), "b": Several(Number(0, 1), 2, 2), "c": {"d": str}, "t": torch.Tensor}
GOOD = {"a": 3, "b": (0, 0.5), "c": {"d": "x", "more": 1}, "t": torch.ones(2), "other": None}


def test_a_value_of_its_form_has_no_fault():
    assert fault(GOOD, FORM) is None


@pytest.mark.parametrize("change, said", [
    ({"a": 0}, "a 0, expected a whole number from 1 to 9"),
    ({"a": True}, "a True, expected a whole number from 1 to 9"),
    ({"a": 3.0}, "a 3.0, expected a whole number from 1 to 9"),
    ({"b": [0.5]}, "b [0.5], expected 2 values"),
    ({"b": [0.5, math.nan]}, "b nan, expected a finite number from 0 to 1"),
    ({"b": "ab"}, "b 'ab', expected 2 values"),
    ({"c": 7}, "c 7, expected parts with names"),
    ({"c": {"e": 1}}, "no d in it, expected a whole checkpoint"),
    ({"c": {"d": 1}}, "c with d 1, expected text"),
    ({"t": [1]}, "t [1], expected a Tensor"),
    ({"a": torch.ones(3)}, "a (tensor (3,)), expected a whole number from 1 to 9"),
    ({"a": [0] * 99}, "a (list of 99), expected a whole number from 1 to 9"),
    ({"a": "x" * 99}, "a 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..., expected a "
     "whole number from 1 to 9"),
])
def test_what_is_said_of_a_wrong_value(change, said):
    assert fault({**GOOD, **change}, FORM) == said


def test_half_made_maps_of_another_grid_are_refused_in_one_line(tmp_path):
    store = MapStore(tmp_path, 3, 2)
    store.add([0], np.zeros((1, 2, 4, 6), np.float16), np.zeros((1, 2)))
    again = MapStore(tmp_path, 3, 2)
    assert again.done().tolist() == [True, False, False]
    with pytest.raises(DataError, match=r"maps.npy.tmp: maps of \(4, 6\) cells, expected \(8, 6\)"):
        again.add([1], np.zeros((1, 2, 8, 6), np.float16), np.zeros((1, 2)))


@pytest.mark.parametrize("value", [10**400, -10**9999, math.inf, math.nan],
                         ids=["long", "longer", "inf", "nan"])
def test_a_number_that_no_float_can_hold_is_none(value):
    assert fault(value, Number(), "x").startswith("x ")
    assert fault(value, Whole(), "x").startswith("x ")
