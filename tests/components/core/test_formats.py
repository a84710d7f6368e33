import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core import formats
from components.core.contracts.job import Metric, Runtime
from components.core.contracts.units import BYTES, MILLISECONDS, parse_quantity


@pytest.mark.parametrize(
    ("value", "text"),
    [(23.345, "23.3"), (0.41234, "0.412"), (1250, "1250"), (1254, "1250"), (0, "0"), (9.999, "10.0"),
     (3e-6, "0.00000300"), (1e-12, "1e-12"), (-2.5, "-2.50"), (math.nan, "nan"), (math.inf, "inf")],
)  # fmt: skip
def test_number_keeps_three_significant_digits(value, text):
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (3_104_221, "3.10 MB"), (2e9, "2.00 GB")]
)
def test_size_is_in_decimal_units(value, text):
    assert formats.size(value) == text


def test_every_metric_and_runtime_has_a_name():
    assert {formats.metric_name(metric) for metric in Metric} == {"mAP50", "mAP", "accuracy", "macro F1"}
    assert len({formats.runtime_name(runtime) for runtime in Runtime}) == len(Runtime)


def test_apart_shows_as_many_digits_as_it_takes():
    assert formats.apart(1.9, 2.0, formats.times) == ("1.90x", "2.00x")
    assert formats.apart(1.9999, 2.0, formats.times) == ("1.9999x", "2.0000x")


@given(st.floats(1e-3, 1e5))
def test_a_rounded_limit_is_met_by_the_value_itself(value):
    slack = 1 + 1e-8
    limit = parse_quantity(formats.rounded(value, formats.milliseconds, up=True), MILLISECONDS, "")
    assert value <= limit * slack <= value * 1.011
    limit = parse_quantity(formats.rounded(value, formats.milliseconds, up=False), MILLISECONDS, "")
    assert value * slack >= limit >= value * 0.989


@given(st.integers(1000, 10**11))
def test_a_rounded_size_is_met_by_the_file_itself(value):
    assert value <= parse_quantity(formats.rounded(value, formats.size, up=True), BYTES, "") * (1 + 1e-8)


def test_a_limit_reads_as_a_person_sets_it():
    texts = [formats.as_limit(2, formats.times), formats.as_limit(2.5, formats.times)]
    texts += [formats.as_limit(20, formats.milliseconds), formats.as_limit(2**24, formats.size)]
    assert texts == ["2x", "2.5x", "20 ms", "16.8 MB"]


def test_a_fraction_has_no_negative_zero():
    assert [formats.fraction(value) for value in (-0.0002, 0.0196, -0.004, math.nan)] == [
        "0.000", "0.020", "-0.004", "nan",
    ]  # fmt: skip


def test_plain_is_one_printable_line():
    assert formats.plain("a\nb\t c\x00\u202e d\u2028e") == "a b c d e"
    assert formats.plain("Bäume 木") == "Bäume 木"


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("a|b", "a\\|b"),
        ("<img src=x>", "&lt;img src=x&gt;"),
        ("[x](http://e)", "\\[x\\](http:\\//e)"),
        ("`rm`\n# title", "\\`rm\\` # title"),
        ("# title", "\\# title"),
        ("- item", "\\- item"),
        ("12. item", "12\\. item"),
        ("22.0 ms", "22.0 ms"),
        ("int8-openvino", "int8-openvino"),
        ("a &lt; b", "a &amp;lt; b"),
    ],
)
def test_markdown_leaves_no_markup_active(text, literal):
    assert formats.markdown(text) == literal


@given(st.text())
def test_markdown_never_breaks_a_line_or_a_cell(text):
    escaped = formats.markdown(text)
    assert len(escaped.splitlines()) <= 1
    assert "|" not in escaped.replace("\\\\", "").replace("\\|", "")
