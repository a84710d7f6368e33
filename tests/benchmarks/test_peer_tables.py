"""What the comparison says of who is ahead, and that a peer's failure is a row and is not tried twice."""

import json
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(autouse=True)
def _peers_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    yield
    for name in ("cells", "environments", "tables", "zoo"):
        sys.modules.pop(name, None)


def ratio(value, spread=0.02):
    return {"ratio": value, "ci_low": value - spread, "ci_high": value + spread}


def row(name, over, accuracy, hasten_over_it=None):
    told = {"competitor": name, "form": "", "seconds": 1.0, "processor_seconds": 1.0, "peak_bytes": 10**8}
    told |= {"p50_ms": 3.0, "processor_ms": 2.0, "over_onnxruntime": ratio(over), "accuracy": accuracy, "bytes": 10**6}
    told |= {"share_of_fp32": 0.26}
    return told | ({"hasten_over_it": ratio(hasten_over_it)} if hasten_over_it else {})


def test_verdict_compares_with_the_fastest_peer():
    from tables import verdict

    slow, fast = row("olive", 0.9, 30.0, 2.2), row("nncf", 1.9, 20.0, 1.05)
    said = verdict([slow, fast, row("hasten", 2.0, 25.0)])
    assert "at least as fast as the fastest of the others, nncf (1.05" in said
    assert "not less accuracy" in said
    behind = verdict([row("nncf", 2.5, 26.0, 0.8), row("hasten", 2.0, 25.0)])
    assert "slower than" in behind
    assert "with less accuracy" in behind


def test_a_peer_that_fails_is_a_row_and_is_not_tried_again(tmp_path, monkeypatch):
    import cells
    from tables import markdown
    from zoo import BenchModel

    tries = []

    def refuse(tool, root):
        tries.append(tool)
        raise RuntimeError("pip install nncf: no | such release")

    monkeypatch.setattr(cells, "python_of", refuse)
    model = BenchModel("resnet18", tmp_path / "model")
    for _ in range(2):
        found = cells.cell(model, "nncf", tmp_path / "cells", tmp_path, 1.0)
    assert found == {"error": "pip install nncf: no | such release"}
    assert tries == ["nncf"]
    assert json.loads((tmp_path / "cells/resnet18/nncf/cell.json").read_text()) == found
    failed = {"competitor": "nncf", "form": "", "error": found["error"], "load_before": 9.0}
    machine = {"cpu": "a CPU", "cores": 2, "threads": 1, "python": "3.11", "versions": {}, "peers": {}}
    machine |= {"rounds": 4, "round_time": 0.2}
    said = markdown({"machine": machine, "models": {"resnet18": {"metric": "sqnr", "rows": [failed]}}})
    assert "| nncf | failed: pip install nncf: no / such release |" in said
    assert "The machine was shared" in said
