"""Random numbers that go on after an interruption where they stopped: Python's, NumPy's, torch's and the GPU's."""

import random

import numpy as np
import torch
from lightning_fabric import Fabric

States = dict[str, torch.Tensor]


def seed_all(seed: int, rank: int) -> None:
    """Seeds every generator; each process draws numbers of its own."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def capture(fabric: Fabric) -> States:
    """The state of every generator of every process, each [processes, numbers]."""
    gathered = {name: fabric.all_gather(state.to(fabric.device)) for name, state in _own().items()}
    return {name: torch.as_tensor(state).reshape(fabric.world_size, -1).cpu() for name, state in gathered.items()}


def restore(states: States, rank: int, world: int) -> bool:
    """Takes up the generators of `capture`; False, and nothing done, if that was with another number of processes."""
    own = _own()
    if states.keys() != own.keys() or any(len(states[name]) != world for name in own):
        return False
    # A copy: torch reads the state from the start of the storage, whatever part of it a row is.
    mine = {name: state[rank].clone() for name, state in states.items()}
    version, *numbers, position = mine["python"].tolist()
    random.setstate((version, (*numbers, position), None))
    *keys, place, has_gauss = mine["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), place, has_gauss, _float(mine["gauss"])))
    torch.set_rng_state(mine["torch"])
    if "cuda" in mine:
        torch.cuda.set_rng_state(mine["cuda"])
    return True


def _own() -> States:
    version, numbers, _ = random.getstate()
    _, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)  # type: ignore[misc]
    states = {
        "python": torch.tensor([version, *numbers], dtype=torch.int64),
        "numpy": torch.tensor([*map(int, keys), int(place), int(has_gauss)], dtype=torch.int64),
        "gauss": torch.tensor([gauss], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _float(state: torch.Tensor) -> float:
    return float(state[0])
