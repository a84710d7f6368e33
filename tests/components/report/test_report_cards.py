import report_boards as boards

from components.core.contracts.job import Runtime
from components.report.cards import cards, text_of


def of(**fields):
    return cards(boards.row("x", 20.0, 0.4, Runtime.OPENVINO, ["int8"], **fields))


def test_details_become_sections_with_flat_rows_and_tables():
    engine, int8 = of(details={"engine": boards.ENGINE, "int8": boards.INT8})
    assert engine.title == "Engine"
    assert ("plugins", "none") in engine.rows
    assert ("profile: image: opt", "1, 3, 256, 256") in engine.rows
    assert int8.rows == [("quantized", "71")]
    (table,) = int8.tables
    assert (table.title, table.columns) == ("restored to fp32", ["layer", "accuracy gain"])
    assert table.rows[0] == ["/roi_heads/box_predictor/cls_score/Gemm", "0.0041"]


def test_what_the_report_shows_elsewhere_is_left_out():
    assert of(details={"detections": "d.json", "verdict": {"misses": []}}) == []


def test_loose_notes_options_and_versions_have_their_sections():
    titles = {card.title: card.rows for card in of(
        details={"seed": 7}, options={"num_streams": 1}, versions={"openvino": "2026.1"}
    )}  # fmt: skip
    assert titles == {
        "Notes": [("seed", "7")],
        "Runtime options": [("num streams", "1")],
        "Versions": [("openvino", "2026.1")],
    }


def test_long_and_deep_notes_are_cut():
    (card,) = of(details={"int8": {"names": list(range(500)), "layers": [{"n": n} for n in range(300)]}})
    assert card.rows[0][1].endswith("79 and 420 more")
    assert (len(card.tables[0].rows), card.tables[0].left_out) == (200, 100)
    deep: dict = {"end": 1}
    for _ in range(50):
        deep = {"in": deep}
    (card,) = of(details={"deep": deep})
    assert len(card.rows) == 1


def test_values_read_well():
    assert [text_of(value) for value in (True, None, 3.1e-6, 0.0041, 1234567.8, float("nan"), [], ["a", 1])] == [
        "yes", "none", "3.1e-06", "0.0041", "1234568", "nan", "none", "a, 1",
    ]  # fmt: skip
