from leaderboard_rows import absent, baseline, board, job, row, yardstick

from components.core.contracts.leaderboard import Leaderboard
from components.leaderboard.finish import finish
from components.leaderboard.table import NUMERIC, header, render_markdown, rows

HOSTILE = "a|b\n# <script>alert(1)</script> `x` [l](http://evil) \u202egnp.exe $x$"


def final() -> Leaderboard:
    slow = row("fp16-openvino", 45.0, stable=False)
    return finish(board(baseline(), yardstick(), row("int8-openvino", 22.0, 0.415), slow, absent("int8-trt")), job())


def test_rows_are_plain_text_fastest_first_and_say_what_each_row_is():
    cells = rows(final())
    assert [(line[0], line[1]) for line in cells] == [
        ("winner", "int8-openvino"),
        ("yardstick", "fp32-openvino"),
        ("", "fp16-openvino"),
        ("baseline", "eager"),
        ("", "int8-trt"),
    ]
    titles = header(final())
    assert all(len(line) == len(titles) for line in cells)
    winner = dict(zip(titles, cells[0], strict=True))
    assert winner["p50"] == "22.0 ms"
    assert winner["speed-up"] == "2.78x"
    assert winner["95% interval"] == "2.70x to 2.87x"
    assert winner["mAP50"] == "0.415"
    assert winner["drop"] == "0.006"
    assert winner["size"] == "12.0 MB"
    assert dict(zip(titles, cells[2], strict=True))["status"] == "ok, unstable"
    failed = dict(zip(titles, cells[4], strict=True))
    assert failed["p50"] == ""
    assert failed["reason"] == "QDQ placement left no layer"
    assert set(titles) >= NUMERIC


def test_markdown_holds_one_line_a_row_with_every_reason():
    lines = render_markdown(final()).splitlines()
    assert len(lines) == 2 + 5
    assert len({line.count("|") for line in lines}) == 1
    assert "QDQ placement left no layer" in lines[-1]


def test_hostile_text_stays_in_its_cell():
    hostile = finish(board(baseline(), row(HOSTILE, 22.0, reason=HOSTILE), absent("x", reason=HOSTILE)), job())
    text = render_markdown(hostile)
    lines = text.splitlines()
    assert len(lines) == 2 + 3
    columns = {line.replace("\\|", "").count("|") for line in lines}
    assert len(columns) == 1
    for active in ("<script", "l](", "\u202e", " `x", "://", " $x$"):
        assert active not in text
    assert all("\n" not in cell and "\u202e" not in cell for line in rows(hostile) for cell in line)
