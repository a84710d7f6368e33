"""Row 24: random equations; Einsums that stay."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from surgery_graphs import FLOAT, assert_untouched, make_model, ops, surgered, worst

SIZES = {"a": 2, "b": 3, "c": 4, "d": 2, "e": 5}


def einsum(equation, shapes, kind=FLOAT):
    names = [f"x{index}" for index in range(len(shapes))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    inputs = {name: (kind, list(shape)) for name, shape in zip(names, shapes, strict=True)}
    return make_model([node], inputs, {"y": (kind, None)})


def check(equation, shapes):
    before = einsum(equation, shapes)
    after = surgered(before, only=[24])
    assert "Einsum" not in ops(after)
    rng = np.random.default_rng(0)
    feed = {f"x{index}": rng.random(shape, np.float32) for index, shape in enumerate(shapes)}
    assert worst(before, after, [feed]) <= 1e-5


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_equations_of_three_and_more(data):
    terms = data.draw(st.lists(st.text("abcde", min_size=1, max_size=3), min_size=3, max_size=4))
    used = sorted(set("".join(terms)))
    output = data.draw(st.permutations(used))[: data.draw(st.integers(0, len(used)))]
    check(",".join(terms) + "->" + "".join(output), [[SIZES[each] for each in term] for term in terms])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_equations_with_an_ellipsis(data):
    terms, shapes = [], []
    leading = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    for _ in range(data.draw(st.integers(1, 3))):
        labels = "".join(sorted(data.draw(st.sets(st.sampled_from("abc"), max_size=3))))
        place = data.draw(st.integers(0, len(labels)))
        own = [1 if data.draw(st.booleans()) else size for size in leading]
        terms.append(f"{labels[:place]}...{labels[place:]}")
        shapes.append([*(SIZES[each] for each in labels[:place]), *own, *(SIZES[each] for each in labels[place:])])
    assume(all(shapes))
    used = sorted(set("".join(terms)) - {"."})
    kept = data.draw(st.permutations(used))[: data.draw(st.integers(0, len(used)))]
    place = data.draw(st.integers(0, len(kept)))
    equation = ",".join(terms)
    if data.draw(st.booleans()):
        equation += "->" + "".join(kept[:place]) + "..." + "".join(kept[place:])
    check(equation, shapes)


@pytest.mark.parametrize(
    ("equation", "shapes", "kind"),
    [
        ("ij,jk->ik", [[2, 3], [3, 4]], FLOAT),
        ("ij->ji", [[2, 3]], FLOAT),
        ("ij,jk,kl->il", [[2, 3], [3, 4], [4, 5]], TensorProto.INT32),
    ],
)
def test_what_every_tensorrt_takes_and_integers_stay(equation, shapes, kind):
    assert_untouched(einsum(equation, shapes, kind), 24)


def test_two_open_sizes_that_would_be_merged_stay():
    assert_untouched(einsum("abc,bcd,d->a", [["a", "b", "c"], ["b", "c", "d"], ["d"]]), 24)
