"""What cam.py promises besides its formulas: classes of each image, finite maps, threads, low
precision, and maps as NumPy arrays."""

import copy
import threading

import numpy as np
import pytest
import torch
import torch.nn as nn

from cam2seg import cam
from test_cam import CALLS, METHODS, close, random, small_net

pytestmark = pytest.mark.usefixtures("fixed_seed")


# A row of classes for each image


def each_call(name, classes):
    return {"class_maps": lambda net, x: cam.class_maps(net, x, "5", classes=classes)[0],
            "guided_backprop": lambda net, x: cam.guided_backprop(net, x, classes),
            "guided_grad_cam": lambda net, x: cam.guided_grad_cam(net, x, "5", classes=classes)[0],
            }[name]


ROWS = [[2, 0], [1, 1], [0, 2], [2, 1]]


@pytest.mark.parametrize("given", [
    ROWS, [tuple(row) for row in ROWS], torch.tensor(ROWS), np.array(ROWS),
    [torch.tensor(row) for row in ROWS]], ids=["lists", "tuples", "tensor", "array", "tensors"])
@pytest.mark.parametrize("name", CALLS)
def test_a_row_for_each_image_chooses_its_maps(name, given):
    net, x = small_net(inplace=True), random(4, 3, 8, 8)
    every = each_call(name, None)(net, x)
    got = each_call(name, given)(net, x)
    assert got.shape == (4, 2, *every.shape[2:])
    for b, row in enumerate(ROWS):
        for n, c in enumerate(row):
            close(got[b, n], every[b, c])
    assert (got[0, 0] - got[0, 1]).abs().max() > 0


def test_the_top_class_of_each_image():
    net, x = small_net(), random(6, 3, 8, 8)
    with torch.no_grad():
        net[-1].bias -= net.eval()(x).mean(dim=0)  # no class is above the others in all images
    every, logits = cam.class_maps(net, x, "5")
    top = logits.argmax(dim=1)
    assert len(set(top.tolist())) > 1
    got, y = cam.class_maps(net, x, "5", classes=logits.topk(1).indices)
    close(got[:, 0], every[torch.arange(6), top])
    close(y, logits)


def test_one_backward_for_each_column_of_classes():
    net, runs = small_net(), []
    net[11].register_full_backward_hook(lambda *_: runs.append(1))
    cam.class_maps(net, random(4, 3, 8, 8), "5", classes=ROWS)
    assert len(runs) == 2


def test_one_image_and_no_image():
    net = small_net()
    assert cam.class_maps(net, random(1, 3, 8, 8), "5", classes=[[1, 2]])[0].shape == (1, 2, 4, 4)
    assert cam.class_maps(net, random(0, 3, 8, 8), "5")[0].shape == (0, 3, 4, 4)


@pytest.mark.parametrize("classes, message", [
    ([[0], [1], [2]], "expected 4 rows"), ([[0, 1], [1], [2, 0], [1, 2]], "expected 4 rows"),
    ([[0], 1, [2], [0]], "expected 4 rows"), ([[0], [1], [3], [0]], "indices from 0 to 2"),
    ([[0], [-1], [2], [0]], "indices from 0 to 2"), ([[], [], [], []], "indices from 0 to 2"),
    ([0.5, 1.0], "indices from 0 to 2"), ([[[0]]] * 4, "indices from 0 to 2")])
@pytest.mark.parametrize("name", CALLS)
def test_rows_that_do_not_fit_are_refused(name, classes, message):
    with pytest.raises(ValueError, match=message):
        each_call(name, classes)(small_net(), random(4, 3, 8, 8))


# Maps that are not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name, layer", [("class_maps", "5"), ("guided_grad_cam", "5")])
def test_a_map_that_is_not_finite_names_image_class_and_layer(name, layer, value):
    net, x = small_net(), random(4, 3, 8, 8)
    x[2, 1, 3, 3] = value
    for classes, first in ((None, 0), ([2, 1], 2), (ROWS, 0), ([[1], [1], [2], [0]], 2)):
        with pytest.raises(cam.NonFiniteMapError) as error:
            each_call(name, classes)(net, x)
        found = error.value
        assert (found.image, found.class_index, found.layer) == (2, first, layer)
        assert isinstance(found, ValueError)
        assert str(found) == (f"the map of image 2 of the batch for class {first} at layer '5' is "
                              "not finite")
    assert each_call(name, None)(net, x[:2]).isfinite().all()


def test_a_layer_given_as_a_module_is_named():
    net, x = small_net(), random(1, 3, 8, 8)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(cam.NonFiniteMapError, match="at layer '5'"):
        cam.class_maps(net, x, net[5])
    with pytest.raises(ValueError, match="layer 'SiLU' runs 0 times"):
        cam.class_maps(net, x, nn.SiLU())


@pytest.mark.parametrize("method", METHODS)
def test_one_class_that_overflows_is_named(method):
    """Two further layers scale the logit of class 1 by 1e400: only its gradients overflow."""
    net, x = small_net(), random(2, 3, 8, 8)
    for _ in range(2):
        net.append(nn.Linear(3, 3, bias=False).double())
        with torch.no_grad():
            net[-1].weight.copy_(torch.diag(torch.tensor([1, 1e200, 1], dtype=torch.float64)))
    with pytest.raises(cam.NonFiniteMapError, match="image 0 .* class 1 "):
        cam.class_maps(net, x, "5", method)
    assert cam.class_maps(net, x, "5", method, classes=[0, 2])[0].isfinite().all()


# Threads


@pytest.mark.parametrize("name", CALLS)
def test_threads_with_a_model_each_get_what_one_thread_gets(name):
    nets = [small_net(inplace=True) for _ in range(2)]
    x = random(2, 3, 16, 16)
    expected = [each_call(name, None)(copy.deepcopy(net), x) for net in nets]
    got, together = [[], []], threading.Barrier(2)

    def work(n):
        together.wait()
        for _ in range(20):
            with torch.inference_mode(n == 0):  # switches of one thread do not reach the other
                got[n].append(each_call(name, None)(nets[n], x))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(2):
        assert len(got[n]) == 20
        for maps in got[n]:
            close(maps, expected[n], 1e-12)


# Low precision


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("how", ["autocast", "model"])
def test_bfloat16_gives_float32_near_the_full_result(name, how):
    net, x = small_net(inplace=True).float(), random(2, 3, 16, 16).float()
    full = each_call(name, None)(net, x)
    if how == "model":
        got = each_call(name, None)(net.bfloat16(), x.bfloat16())
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = each_call(name, None)(net, x)
    assert got.dtype == torch.float32
    assert 0 < (got - full).abs().max() < 0.2 * full.abs().max()
    assert torch.nn.functional.cosine_similarity(got.flatten(), full.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("how", ["autocast", "model"])
def test_float16_is_refused(name, how):
    net, x = small_net(inplace=True).float(), random(2, 3, 16, 16).float()
    with pytest.raises(ValueError, match="computes in float16.*use float32 or bfloat16"):
        if how == "model":
            each_call(name, None)(net.half(), x.half())
        else:
            with torch.autocast("cpu", torch.float16):
                each_call(name, None)(net, x)


# NumPy maps


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("how, after", [("minmax", False), ("minmax", True), ("max", False),
                                        ("max", True)])
def test_numpy_maps_are_the_image_maps_in_float32(dtype, how, after):
    small = np.random.default_rng(0).random((3, 4, 5)).astype(dtype)
    small.flags.writeable = False  # as a memory map opened for reading
    full = cam.numpy_maps(small, (9, 11), how, after)
    assert full.shape == (3, 9, 11) and full.dtype == np.float32
    maps = torch.tensor(small.astype(np.float32))[None]
    assert np.array_equal(full, cam.image_maps(maps, (9, 11), how, after)[0].numpy())
    assert np.array_equal(cam.numpy_maps(small, (9, 11)), cam.numpy_maps(small, (9, 11), "minmax"))


def test_a_map_of_one_cell_is_empty_by_minmax_alone():
    """DEV-35"""
    one = np.full((2, 1, 1), 0.7, np.float32)
    assert (cam.numpy_maps(one, (3, 4)) == 0).all()
    assert (cam.numpy_maps(one, (3, 4), "max") == 1).all()
