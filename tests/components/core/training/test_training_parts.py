"""The loop's parts: order of data, what is held back, the learning rate's way, checkpoints and where they are."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from components.core.contracts.job import Training
from components.core.errors import UserError
from components.core.stepping import listening
from components.core.training.checkpoints import Checkpoints, checkpoints_of
from components.core.training.data import Share, Shuffled, held_back
from components.core.training.schedule import average_decay, warmup_cosine
from components.core.training.stopping import until_limit
from fixtures.seaweedfs import S3Server

STATE: dict[str, Any] = {"step": 3, "module": {"weight": torch.arange(4.0)}, "scales": [(1, 65536.0)], "text": "x"}
ALONE = Share()


def shuffled(count: int = 10, batch: int = 4, share: Share = ALONE) -> Shuffled:
    def make(index: int, chooser: random.Random) -> tuple[int, float]:
        return index, chooser.random()

    return Shuffled(count, make, list, batch, seed=5, share=share)


def test_every_epoch_has_all_samples_in_another_order():
    data = shuffled()
    epochs = [[index for batch in data.epoch(number) for index, _ in batch] for number in range(3)]
    assert len(data) == 3
    for epoch in epochs:
        assert len(epoch) == 12  # the last batch is filled up
        assert set(epoch) == set(range(10))
        assert epoch[10:] == epoch[:2]
    assert epochs[0] != epochs[1] != epochs[2]
    assert len({data.order(number) for number in range(3)}) == 3
    assert data.order(1) != shuffled(count=11).order(1)


def test_an_epoch_taken_up_in_the_middle_has_the_rest_and_the_same_draws():
    data = shuffled()
    assert list(data.epoch(1))[2:] == list(data.epoch(1, first=2))
    assert list(data.epoch(1, first=3)) == []
    before = torch.get_rng_state()
    list(data.epoch(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_shares_are_the_batches_of_one_process():
    parts = [list(shuffled(share=Share(rank, 2)).epoch(2)) for rank in (0, 1)]
    assert [left + right for left, right in zip(*parts, strict=True)] == list(shuffled().epoch(2))


def test_fewer_samples_than_a_batch_are_repeated():
    (batch,) = shuffled(count=3, batch=8).epoch(0)
    assert len(batch) == 8
    assert {index for index, _ in batch} == {0, 1, 2}


def test_what_is_held_back():
    names = [f"{number}.png" for number in range(50)]
    train, back = held_back(names, 0.1, 7)
    assert len(back) == 5
    assert sorted(train + back) == list(range(50))
    assert held_back(names, 0.1, 8) != (train, back)
    more = held_back([*names, "new.png"], 0.1, 7)[1]
    assert len(set(more) & set(back)) >= 4
    assert [len(part) for part in held_back(["a", "b"], 0.01, 7)] == [1, 1]
    with pytest.raises(UserError, match=r"data.train has 1 samples"):
        held_back(["a"], 0.1, 7)


def test_warm_up_and_cosine():
    rates = [warmup_cosine(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.505)
    assert rates[-1] == pytest.approx(0.01)
    assert warmup_cosine(0, 1, 0.0) == 1
    assert average_decay(1000) == pytest.approx(0.99)
    assert average_decay(5) == 0


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoints = Checkpoints(str(tmp_path / "new" / "c.pt"), "one")
    assert checkpoints.load() is None
    checkpoints.save(STATE)
    found = checkpoints.load()
    assert found is not None
    assert torch.equal(found.pop("module")["weight"], STATE["module"]["weight"])
    assert found == {key: value for key, value in STATE.items() if key != "module"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["c.pt"]
    checkpoints.clear()
    checkpoints.clear()
    assert checkpoints.load() is None


class Planted:
    """What must never come to life."""

    def __reduce__(self) -> Any:
        return (Path("planted").touch, ())


@pytest.mark.parametrize("damage", ["truncated", "empty", "planted"])
def test_a_damaged_checkpoint_is_passed_over_and_no_code_in_it_runs(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    checkpoints = Checkpoints(str(path), "one")
    checkpoints.save(STATE)
    if damage == "planted":
        torch.save({"identity": "one", "state": Planted()}, path)
    else:
        path.write_bytes(path.read_bytes()[: 500 if damage == "truncated" else 0])
    said: list[str] = []
    with listening(lambda message, *_: said.append(message)):
        assert checkpoints.load() is None
    assert "is damaged" in said[0]
    assert not (tmp_path / "planted").exists()


def test_a_checkpoint_in_an_s3_store(s3: S3Server):
    checkpoints = checkpoints_of("one", f"s3://{s3.new_bucket()}/run/bundle")
    assert checkpoints.uri.endswith("/run/bundle-checkpoints/one.pt")
    assert checkpoints.load() is None
    checkpoints.save(STATE)
    checkpoints.save(STATE | {"step": 4})
    found = checkpoints.load()
    assert found is not None
    assert found["step"] == 4
    assert Checkpoints(checkpoints.uri, "two").load() is None
    checkpoints.clear()
    assert checkpoints.load() is None


def test_on_this_machine_checkpoints_are_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HASTEN_CACHE", str(tmp_path))
    assert checkpoints_of("a" * 64, str(tmp_path / "out")).uri == str(tmp_path / "training" / f"{'a' * 32}.pt")


def test_the_time_left_ends_with_the_limit_that_comes_first():
    assert until_limit(Training(), 10, 20) == math.inf
    assert until_limit(Training(max_time="60 s"), 10, 20) == 50
    assert until_limit(Training(max_time="60 s", max_core_time="60 s"), 10, 20) == 20  # two cores busy
    assert until_limit(Training(max_core_time="60 s"), 10, 0) == math.inf
    assert until_limit(Training(max_time="5 s"), 10, 20) == 0
