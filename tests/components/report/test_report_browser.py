"""The report as a browser shows it: nothing to complain about, and what should be there is really drawn."""

import pytest
import report_boards as boards
from browser import Browser, executable

from components.leaderboard.finish import finish
from components.report.run import run_report

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium (apt-get install chromium)")

_PICTURES = "[...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width])"
_BAR_WIDTHS = (
    "[...document.querySelectorAll('.chart svg')].map(s => "
    "[...s.querySelectorAll('path')].filter(p => p.getBoundingClientRect().width > 1).length)"
)
_TEXTS = (
    "[...document.querySelectorAll('.chart svg')].map(s => [...s.querySelectorAll('text')].map(t => t.textContent))"
)
_LABELS = """[...document.querySelectorAll('.chart svg')[0].querySelectorAll('text')]
  .filter(t => /^(eager|fp32|fp16|int8|surgery)-?/.test(t.textContent) && t.textContent.includes('-'))
  .map(t => { const r = t.getBoundingClientRect(); return [t.textContent, r.left, r.top, r.right, r.bottom]; })"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    bundle = boards.make_bundle(folder / "bundle")
    rows = boards.with_detections(boards.rows(), folder / "detections", bundle)
    run_report(boards.job(), finish(boards.board(rows), boards.job()), bundle, folder / "out", boards.COMMAND)
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_opens_without_a_complaint_and_fetches_only_itself(browser, report, scheme):
    browser.open(report, prefers_color_scheme=scheme)
    assert browser.complaints() == []
    assert browser.requests() == [report.resolve().as_uri()]


def test_the_check_itself_sees_a_violation(browser, report):
    """A report that did fetch something would be caught."""
    tampered = report.with_name("tampered.html")
    tampered.write_text(report.read_text().replace("</main>", "<img src='missing.png'><script>1</script></main>"))
    browser.open(tampered)
    complaints = " ".join(browser.complaints())
    assert "Content Security Policy" in complaints
    assert "missing.png" in complaints or "img-src" in complaints


def test_pictures_are_decoded_and_shown(browser, report):
    browser.open(report)
    pictures = browser.evaluate(_PICTURES)
    assert len(pictures) == 8
    for complete, natural, shown in pictures:
        assert complete
        assert natural >= 200
        assert shown > 100


def test_both_charts_are_drawn_with_the_names_of_the_candidates(browser, report):
    browser.open(report)
    measured = [row.id for row in boards.rows() if row.latency_ms]
    for drawn, texts in zip(browser.evaluate(_BAR_WIDTHS), browser.evaluate(_TEXTS), strict=True):
        assert drawn > len(measured)
        assert set(measured) <= set(texts)
    assert "goal: at least 0.401" in browser.evaluate(_TEXTS)[0]
    assert "Pareto front" in browser.evaluate(_TEXTS)[0]


def test_labels_do_not_cover_one_another(browser, report):
    browser.open(report)
    labels = browser.evaluate(_LABELS)
    assert len(labels) >= 7
    for index, (name, left, top, right, bottom) in enumerate(labels):
        for other, left2, top2, right2, bottom2 in labels[index + 1 :]:
            width, height = min(right, right2) - max(left, left2), min(bottom, bottom2) - max(top, top2)
            area = max(width, 0) * max(height, 0)
            assert area < 0.15 * (right - left) * (bottom - top), f"{name} covers {other}"


def test_colours_follow_the_scheme_of_the_reader(browser, report):
    colour = (
        "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.querySelector('.chart text')).fill"
    )
    browser.open(report, prefers_color_scheme="light")
    light = browser.evaluate(colour)
    browser.open(report, prefers_color_scheme="dark")
    assert browser.evaluate(colour) != light


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(browser, report, width):
    browser.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    try:
        browser.open(report)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        browser.send("Emulation.clearDeviceMetricsOverride")


def test_details_open_without_a_script_and_it_prints(browser, report):
    browser.open(report)
    browser.evaluate("document.querySelector('details summary').click()")
    assert browser.evaluate("document.querySelector('details').open")
    assert browser.evaluate("document.querySelector('details .facts').getBoundingClientRect().height > 20")
    assert browser.pdf().startswith(b"%PDF")
