import json
import math
import re
from html.parser import HTMLParser

import pytest
import report_boards as boards

from components.core.contracts.job import Goal, Runtime
from components.core.contracts.leaderboard import Candidate, Leaderboard
from components.core.contracts.ledger import Ledger
from components.core.contracts.variant import Status
from components.leaderboard.finish import finish
from components.report.run import run_report

HOSTILE = (
    "x\"'><script>alert(1)</script>&lt;<img src=x onerror=alert(2)>|`b`\n"
    "## [l](http://evil.example)$\\frac$ {{7*7}}\u202e"
)


def write(tmp_path, candidates=None, goal=boards.GOAL, command=boards.COMMAND, bundle=None, board=None):
    bundle = bundle or boards.make_bundle(tmp_path / "bundle")
    rows = boards.with_detections(candidates or boards.rows(), tmp_path / "detections", bundle)
    board = finish(board or boards.board(rows, goal), boards.job(goal))
    out = tmp_path / "out"
    run_report(boards.job(goal), board, bundle, out, command)
    return out


def page_of(out) -> str:
    return (out / "report.html").read_text()


class Structure(HTMLParser):
    """Tags in order, and that each is closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_leaderboard_json_has_exactly_the_promised_structure(tmp_path):
    board = json.loads((write(tmp_path) / "leaderboard.json").read_text())
    assert set(board) >= {"goal", "baseline", "goal_met", "winner", "candidates"}
    assert (board["baseline"], board["winner"], board["goal_met"]) == ("eager", "int8-openvino", True)
    keys = {
        "id", "rung", "techniques", "runtime", "status", "reason", "latency_ms", "speedup", "accuracy", "size_bytes",
        "peak_rss_bytes", "uri", "sha256",
    }  # fmt: skip
    for row in board["candidates"]:
        assert set(row) >= keys
    winner = next(row for row in board["candidates"] if row["id"] == "int8-openvino")
    assert set(winner["latency_ms"]) == {"p50", "p90", "p99"}
    assert set(winner["speedup"]) == {"ratio", "ci_low", "ci_high"}
    assert set(winner["accuracy"]) == {"metric", "value", "drop"}
    assert winner["techniques"] == ["surgery", "int8"]
    skipped = next(row for row in board["candidates"] if row["id"] == "int8-tensorrt-rtx")
    assert (skipped["status"], skipped["reason"]) == ("skipped", "engine built, not timed: no GPU")
    assert skipped["latency_ms"] is None


def test_leaderboard_json_is_strict_json_and_reads_back_as_the_contract(tmp_path):
    noted = boards.rows()
    noted[3] = noted[3].model_copy(update={"details": {"parity": {"worst": math.nan, "all": [math.inf, 1.5]}}})
    text = (write(tmp_path, noted) / "leaderboard.json").read_text()
    board = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert Leaderboard.model_validate(board).winner == "int8-openvino"
    parity = next(row for row in board["candidates"] if row["id"] == noted[3].id)["details"]["parity"]
    assert parity == {"worst": None, "all": [None, 1.5]}


def test_the_page_is_whole_and_asks_for_nothing_outside(tmp_path):
    text = page_of(write(tmp_path))
    page = Structure(text)
    assert page.open == []
    assert [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"] == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ]
    assert not page.named("script")
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not re.search(r"@import|url\((?!#)", text)
    assert "http://" not in text
    assert "https://" not in text


def test_the_page_is_accessible(tmp_path):
    page = Structure(page_of(write(tmp_path)))
    assert len(page.named("img")) == 8
    assert all("objects found" in image["alt"] for image in page.named("img"))
    assert all(header.get("scope") in ("col", "row") for header in page.named("th"))
    assert len(page.named("svg")) >= 2
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = {
        name
        for _, attributes in page.tags
        for key in ("aria-labelledby",)
        for name in (attributes.get(key) or "").split()
    }
    assert referred <= set(ids)
    charts = [svg for svg in page.named("svg") if svg.get("role") == "img"]
    assert len(charts) == 2
    assert all(svg["aria-labelledby"] for svg in charts)
    assert page.named("html") == [{"lang": "en"}]


def test_the_page_says_what_was_won_and_over_what(tmp_path):
    text = page_of(write(tmp_path))
    assert (
        "<h1>int8-openvino is 2.71x as fast as the model you run today "
        "(1.46x as fast as the untouched model in its best runtime) and loses 0.006 mAP50.</h1>"
    ) in text
    assert "95% interval 2.61x to 2.80x" in text
    assert "outputs are NaN on 3 of 12 test images" in text
    assert "engine built, not timed: no GPU" in text
    assert "score of at least 0.5" in text
    assert boards.COMMAND in text
    assert "tensorrt-rtx 1.7.1" in text
    assert "/rpn/head/cls_logits/Conv" in text


def test_every_measured_row_is_in_both_charts(tmp_path):
    out = write(tmp_path)
    svgs = re.findall(r"<svg[^>]*role=\"img\".*?</svg>", page_of(out), re.DOTALL)
    assert len(svgs) == 2
    for svg in svgs:
        for row in boards.rows():
            assert (f">{row.id}<" in svg) == (row.latency_ms is not None)


def test_the_same_run_gives_the_same_bytes(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle")
    detections = boards.with_detections(boards.rows(), tmp_path / "detections", bundle)
    board = finish(boards.board(detections), boards.job())
    for name in ("a", "b"):
        run_report(boards.job(), board, bundle, tmp_path / name, boards.COMMAND)
    for name in ("leaderboard.json", "report.md", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["leaderboard.json", "report.html", "report.md"]


def test_large_noisy_images_stay_within_three_megabytes(tmp_path):
    out = write(tmp_path, bundle=boards.make_bundle(tmp_path / "big", images=5, side=1400))
    assert (out / "report.html").stat().st_size < 3_000_000
    assert page_of(out).count("data:image/jpeg") == 8


def test_a_second_report_replaces_the_first_whole(tmp_path, monkeypatch):
    out = write(tmp_path)
    before = page_of(out)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    board = finish(boards.board(), boards.job())
    with pytest.raises(OSError, match="No space"):
        run_report(boards.job(), board, tmp_path / "bundle", out, "other")
    assert page_of(out) == before
    assert sorted(path.name for path in out.iterdir()) == ["leaderboard.json", "report.html", "report.md"]


def test_without_a_winner_the_nearest_candidate_is_shown_with_what_it_misses(tmp_path):
    goal = Goal(min_speedup="4x", max_accuracy_drop=0.001)
    text = page_of(write(tmp_path, goal=goal))
    assert "<h1>The goal is not met: the nearest candidate, int8-openvino, is 2.71x as fast" in text
    assert "goal not met" in text
    assert (
        "<li>speed-up 2.61x as the lower end of the 95% interval (measured 2.71x), at least 4.00x wanted</li>" in text
    )
    assert "<li>mAP50 drop 0.006, at most 0.001 wanted</li>" in text
    assert "<b>int8-openvino</b>" in text  # its boxes are beside the baseline's


@pytest.mark.parametrize("kept", [1, 0])
def test_a_run_in_which_nothing_could_be_measured_still_has_a_report(tmp_path, kept):
    broken = Candidate(id="eager", rung="baseline", techniques=[], runtime=Runtime.TORCH, status=Status.FAILED,
                       reason="out of memory", reference=True)  # fmt: skip
    out = write(tmp_path, boards.rows()[:1] if kept else [broken])
    assert "The goal is not met: no candidate could be measured." in page_of(out)
    assert Structure(page_of(out)).open == []
    assert ('role="img"' in page_of(out)) == bool(kept)
    assert "out of memory" in page_of(out) or kept


def test_a_goal_on_size_alone_draws_and_says_what_it_can(tmp_path):
    text = page_of(write(tmp_path, goal=Goal(max_size="4 MB", max_accuracy_drop=0.02)))
    assert "file at most 4 MB" in text
    assert "goal: at least 0.401" in text
    assert "goal: at most" not in text


def test_missing_pictures_are_named_and_stop_nothing(tmp_path):
    board = finish(boards.board(), boards.job())
    run_report(boards.job(), board, tmp_path / "nowhere", tmp_path / "out", boards.COMMAND)
    text = page_of(tmp_path / "out")
    assert "Nothing to show." in text
    assert "annotations.json cannot be read" in text


def test_hostile_text_is_text_everywhere(tmp_path):
    bundle = boards.make_bundle(tmp_path / "bundle", classes=(HOSTILE,))
    rows = boards.with_detections(boards.rows(), tmp_path / "detections", bundle)
    nasty = boards.row(HOSTILE, 21.0, 0.42, Runtime.OPENVINO, ["surgery", "int8", HOSTILE], reason=HOSTILE,
                       details={HOSTILE: HOSTILE, "engine": {HOSTILE: [{HOSTILE: HOSTILE}]}, "detections": HOSTILE},
                       versions={HOSTILE: HOSTILE})  # fmt: skip
    board = boards.board([*rows, nasty]).model_copy(update={"environment": {HOSTILE: HOSTILE}, "job": HOSTILE})
    out = write(tmp_path, board=board, bundle=bundle, command=f"hasten run '{HOSTILE}' ```\n```")
    text = page_of(out)
    page = Structure(text)
    assert page.open == []
    assert not page.named("script")
    assert len(page.named("img")) == 4  # the baseline's only: the winner's detections cannot be read
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.named("img"))
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(attributes.get("href", "data:").startswith(("data:", "#")) for _, attributes in page.tags)
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "{{7*7}}" in text
    assert json.loads((out / "leaderboard.json").read_text())["winner"] == HOSTILE
    tables = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("| ")]
    rows_of_board = [line for line in tables if line.count("|") > 10]
    assert len(rows_of_board) == 2 + 11
    assert len({line.replace("\\|", "").count("|") for line in rows_of_board}) == 1
    outside = re.sub(r"(`{3,})sh\n.*?\n\1", "", (out / "report.md").read_text(), flags=re.DOTALL)
    for active in ("<script", "<img", "l](http", "://", "\u202e", " `b`"):
        assert active not in outside
    assert "\n````sh\n" in (out / "report.md").read_text()


def test_what_it_cost_and_what_was_saved_are_told(tmp_path):
    charges = [
        {"step": step, "id": step, "started": started, "wall_seconds": 61, "core_seconds": 90, "rung": "int8"}
        for step, started in (("surgery", 1), ("engine", 20), ("benchmark", 30))
    ]
    ledger = {"since": 10, "charges": charges}
    charged = boards.board().model_copy(update={"ledger": Ledger.model_validate(ledger)})
    out = write(tmp_path, board=charged)
    page, text = page_of(out), (out / "report.md").read_text()
    assert "| int8 | 2 min 02 s | 3 min 00 s |  | engine, benchmark | surgery |" in text
    assert "- fp16 was not climbed" in text
    assert "saved at least 2 min 02 s" in text
    assert "What it cost" in page
    assert "what that saved is unknown" in page
    out = write(tmp_path / "none", board=boards.board())
    assert "What it cost" not in page_of(out) + (out / "report.md").read_text()


def test_markdown_has_the_headline_the_goal_and_every_row(tmp_path):
    text = (write(tmp_path) / "report.md").read_text()
    assert text.startswith("# hasten: trees\n\n**int8-openvino is 2.71x as fast")
    assert "Goal (met):\n\n- speed-up at least 2x\n- mAP50 drop at most 0.02\n" in text
    for row in boards.rows():
        assert f"\n| {row.id} |" in text
    assert f"```sh\n{boards.COMMAND}\n```" in text
    assert "\n\n\n" not in text
