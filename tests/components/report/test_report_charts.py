import re
from xml.etree import ElementTree

import pytest
import report_boards as boards
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.contracts.job import Goal, Runtime
from components.core.contracts.leaderboard import Latency
from components.leaderboard.finish import finish
from components.report.charts.bars import bars, split
from components.report.charts.labels import Box, place
from components.report.charts.scatter import MAX_LABELS, points_of, region_of, scatter
from components.report.theme import KINDS, kind_of


def board(rows=None, goal=boards.GOAL):
    return finish(boards.board(rows, goal), boards.job(goal))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def test_charts_are_clean_svg_for_a_page():
    for svg in (scatter(board()), bars(board())):
        root = ElementTree.fromstring(svg)
        assert root.tag == "svg"
        assert root.get("viewBox")
        assert root.get("role") == "img"
        tags = {element.tag for element in root.iter()}
        assert not tags & {"metadata", "style", "script", "image"}
        assert not re.search(r"#0102[0-9a-f]{2}", svg)  # every placeholder became a CSS variable
        assert "var(--ink)" in svg
        assert "http" not in svg
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids))
        referred = set(re.findall(r"url\(#([^)]+)\)", svg))
        referred |= {element.get("href").removeprefix("#") for element in root.iter() if element.get("href")}
        assert referred <= set(ids)


def test_the_two_charts_share_no_ids():
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (scatter(board()), bars(board()))]
    assert not ids[0] & ids[1]


def test_the_goal_region_is_the_speedup_and_the_drop_in_the_charts_units():
    region = region_of(board())
    assert region.max_p50 == pytest.approx(boards.BASE_P50 / 2)
    assert region.min_accuracy == pytest.approx(boards.BASE_MAP50 - 0.02)
    both = Goal(min_speedup="2x", max_p50="20 ms", max_accuracy_drop=0.0)
    assert region_of(board(goal=both)).max_p50 == 20
    assert "goal: at most 20 ms" in texts(scatter(board(goal=both)))
    assert region_of(board(goal=Goal(max_size="1 MB", max_accuracy_drop=0.0))).max_p50 is None


def test_a_wide_range_of_latencies_gets_a_logarithmic_axis():
    assert not any("logarithmic" in text for text in texts(scatter(board())))
    fast = boards.row("distill-int8", 4.0, 0.41, Runtime.OPENVINO, ["distill", "int8"])
    assert any("logarithmic" in text for text in texts(scatter(board([*boards.rows(), fast]))))


def test_a_ruined_model_is_shown_at_the_edge_with_its_number():
    ruined = boards.row("int8-ruined", 15.0, 0.031, Runtime.OPENVINO, ["surgery", "int8"])
    assert "int8-ruined (0.031, below the scale)" in texts(scatter(board([*boards.rows(), ruined])))


def test_a_crowd_is_labelled_from_the_most_important_on():
    crowd = [boards.row(f"extra-{n}", 40 + n, 0.39, Runtime.OPENVINO, ["int8"]) for n in range(30)]
    shown = texts(scatter(board([*boards.rows(), *crowd])))
    assert sum(text.startswith("extra-") for text in shown) == MAX_LABELS - 8
    assert {"int8-openvino", "eager", "fp32-openvino"} <= set(shown)


def test_names_are_no_formulas():
    odd = boards.row(r"$\frac{$ & <b>", 20.0, 0.42, Runtime.OPENVINO, ["int8"])
    for chart in (scatter, bars):
        assert r"$\frac{$ & <b>" in texts(chart(board([*boards.rows(), odd])))


def test_without_measurements_there_is_no_chart():
    rows = [row for row in boards.rows() if row.latency_ms is None]
    empty = boards.board(rows)
    assert scatter(empty) is None
    assert bars(empty) is None
    blind = boards.board([boards.rows()[0].model_copy(update={"accuracy": None, "other_accuracy": {}})])
    assert scatter(blind) is None
    assert bars(blind) is not None


def test_the_models_share_never_exceeds_the_whole():
    row = boards.rows()[0]
    assert split(row) == pytest.approx((57.8, 3.4))
    longer = Latency(p50=70, p90=71, p99=72)
    assert split(row.model_copy(update={"model_latency_ms": longer})) == (61.2, 0)
    assert split(row.model_copy(update={"model_latency_ms": None})) == (61.2, 0)


def test_kinds_differ_in_shape_and_colour():
    assert len({kind.marker for kind in KINDS}) == len({kind.light for kind in KINDS}) == len(KINDS)
    final = board()
    kinds = {point.row.id: kind_of(point.row, final).name for point in points_of(final)}
    assert kinds["eager"] == "baseline"
    assert kinds["fp32-openvino"] == "yardstick"
    assert kinds["surgery-openvino"] == "surgery"
    assert kinds["int8-openvino"] == "int8"
    odd = boards.row("b", 1, 0.4, Runtime.OPENVINO, ["backbone"])
    assert kind_of(odd, final).name == "other"


positions = st.tuples(st.floats(40, 560), st.floats(40, 310))


@settings(max_examples=40, deadline=None)
@given(st.lists(positions, min_size=1, max_size=9))
def test_labels_stay_in_the_frame_and_hardly_overlap(points):
    frame = Box(0, 0, 600, 350)
    placed = place(points, [(80.0, 12.0)] * len(points), frame)
    for index, each in enumerate(placed):
        assert each.box.overlap(frame) > 0.99 * each.box.area
        for other in placed[:index]:
            assert each.box.overlap(other.box) < 0.5 * each.box.area


def test_a_lone_label_sits_beside_its_point_without_a_line():
    (label,) = place([(300.0, 150.0)], [(80.0, 12.0)], Box(0, 0, 600, 350))
    assert not label.leader
    assert label.box.distance(300, 150) < 12
