"""The table of docs/security.md: every row names a test, and every test that it names is there and is collected."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
THREATS = (
    "pickle", "archive", "ONNX", "YAML", "SSRF", "DNS", "redirect", "shell", "factory", "keys, tokens", "manifests",
    "pods", "metadata",
)  # fmt: skip


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "security.md").read_text().split("## Threats")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def named() -> set[str]:
    return {test for row in rows() for test in re.findall(r"`(tests/[^`]+)`", row[-1])}


def test_every_row_has_a_threat_a_defence_and_a_test() -> None:
    found = rows()
    assert len(found) > 20
    for row in found:
        assert len(row) == 3, row
        assert all(row), row
        assert re.findall(r"`(tests/[^`]+)`", row[2]), row[0]
    text = " ".join(row[0] + row[1] for row in found)
    assert [threat for threat in THREATS if threat not in text] == []


def test_every_named_test_is_collected() -> None:
    tests = named()
    files = sorted({test.partition("::")[0] for test in tests})
    assert all((ROOT / file).is_file() for file in files), [file for file in files if not (ROOT / file).is_file()]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    collected = {re.sub(r"\[.*", "", line) for line in done.stdout.splitlines() if "::" in line}
    collected |= {test.partition("::")[0] for test in collected}
    assert sorted(tests - collected) == []
