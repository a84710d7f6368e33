"""TensorRT's own words, as sentences, and the rules behind them."""

import pytest

from components.core.tensorrt_tools.rules import RULES, rule_for
from components.core.tensorrt_tools.words import LIMIT, plain, shortened_words

DRIVER = (
    " [checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient))"
)
SAID = [
    ('(antialias == 0) && "Antialiasing is not supported currently."', "Antialiasing is not supported currently."),
    ('(mode == "a") && "Only half_pixel and " "align_corners!"', "Only half_pixel and align_corners!"),
    ("Assertion failed: plugin != nullptr: ROIAlign plugin was not found!", "ROIAlign plugin was not found!"),
    ("Assertion failed: a::b(c) == D::kV3: NonZero plugin was not found", "NonZero plugin was not found"),
    ("false", "the parser has no importer for this operator"),
    ("Unsupported reduction type", "Unsupported reduction type"),
    (
        "Invalid Node - dqb\nITensor::getDimensions: Error Code 4: API Usage Error (dqb: input has type Int32 but must "
        "have type Int8. In checkType at /_src/optimizer/common/nodeBase.cpp:456)" + DRIVER,
        "dqb: input has type Int32 but must have type Int8.",
    ),
    (
        "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (ITopKLayer the/TopK: K exceeds the maximum "
        "value allowed (3840). In processCheck at /_src/a/b.cpp:1066 In analyzeShapes at /_src/a/b.cpp:2825)",
        "ITopKLayer the/TopK: K exceeds the maximum value allowed (3840).",
    ),
    (
        "[tacticSupply.cpp::getSupportedFormats::48] Error Code 2: Internal Error (Assertion !layerImpls.empty() "
        "failed. nms_0 has no runners that implement it In getSupportedFormats at /_src/a/b.cpp:48)",
        "Assertion !layerImpls.empty() failed. nms_0 has no runners that implement it",
    ),
]


@pytest.mark.parametrize(("words", "sentence"), SAID)
def test_the_sentence_is_found(words, sentence):
    assert plain(words) == sentence
    assert plain(plain(words)) == sentence


def test_long_words_are_cut():
    assert len(shortened_words("x" * 1000)) == LIMIT
    assert shortened_words("short") == "short"


def test_rules_say_what_and_what_to_do():
    assert all(rule.refused and rule.way_out and len(rule.refused + rule.way_out) < 300 for rule in RULES)
    assert {rule.row for rule in RULES if rule.row is not None} <= set(range(1, 48))


@pytest.mark.parametrize(("reduction", "row"), [("add", 20), ("max", 44), ("min", 44), ("mul", 44)])
def test_an_attribute_decides_between_rows(reduction, row):
    found = rule_for("ScatterND", "ScatterND with reduction is not supported.", {"reduction": reduction})
    assert found is not None
    assert found.row == row
    assert f"reduction={reduction}" in found.refused


def test_what_nobody_knows_has_no_rule():
    assert rule_for("Conv", "the moon is in the way") is None
    assert rule_for("", "") is None
