"""Row 21: any constant places; scatters that stay."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from surgery_graphs import FLOAT, INT64, assert_untouched, make_model, ops, surgered, worst


def write(shape, places, **attributes):
    node = helper.make_node("ScatterND", ["x", "places", "v"], ["y"], **attributes)
    updates = [*places.shape[:-1], *shape[places.shape[-1] :]]
    inputs = {"x": (FLOAT, shape), "v": (FLOAT, updates)}
    return make_model([node], inputs, {"y": (FLOAT, shape)}, {"places": places}, opset=18)


def check(shape, places):
    before = write(shape, places)
    after = surgered(before, only=[21])
    rng = np.random.default_rng(0)
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in before.graph.input}
    feed = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    assert worst(before, after, [feed]) == 0
    return ops(after)


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), draw=st.data())
def test_any_block_is_a_concat(shape, draw):
    width = draw.draw(st.integers(1, len(shape)))
    bounds = [sorted((draw.draw(st.integers(0, n - 1)), draw.draw(st.integers(0, n - 1)))) for n in shape[:width]]
    grid = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in bounds), indexing="ij"), -1)
    if draw.draw(st.booleans()):
        grid = grid - np.array(shape[:width])  # the same places, counted from the end
    assert check(shape, grid) <= {"Concat", "Slice", "Reshape", "Identity"}


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), draw=st.data())
def test_any_list_of_places(shape, draw):
    width, count = draw.draw(st.integers(1, len(shape))), draw.draw(st.integers(1, 6))
    places = [[draw.draw(st.integers(-n, n - 1)) for n in shape[:width]] for _ in range(count)]
    assert "ScatterND" not in check(shape, np.array(places))


def test_places_from_the_data_stay():
    node = helper.make_node("ScatterND", ["x", "places", "v"], ["y"])
    inputs = {"x": (FLOAT, [5, 3]), "places": (INT64, [2, 1]), "v": (FLOAT, [2, 3])}
    assert_untouched(make_model([node], inputs, {"y": (FLOAT, [5, 3])}), 21)


def test_a_reduction_is_another_row():
    assert_untouched(write([5, 3], np.array([[1], [2]]), reduction="add"), 21)


def test_many_scattered_places_stay():
    assert_untouched(write([2**17, 3], np.array([[1], [5]])), 21)
