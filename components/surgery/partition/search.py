"""Finds the parts: what the parser refuses goes to the remainder, and so does what parses and does not build."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.core.contracts.run_plan import Profile
from components.core.stepping import progress
from components.surgery.partition.cut import Piece, cut, piece
from components.surgery.partition.flow import Flow
from components.surgery.partition.native import Verdict
from components.surgery.partition.oracle import Oracle
from components.surgery.partition.schedule import WORK, Stretch, schedule
from components.surgery.partition.tensors import ENGINE_TYPES, Tensors, UnseenError

MAX_BUILDS = 64
"""Engines that are tried in all, before what is still unclear is given to the remainder."""
_MAX_ROUNDS = 1000
_MAX_REASONS = 32
_UNCLEAR = "the part does not build, and no single node was found to blame"


@dataclass(frozen=True)
class Engine:
    """A piece that was built."""

    piece: Piece
    profiles: dict[str, Profile]
    file: Path


@dataclass
class Search:
    """The search for the parts of one model.

    Args:
        flow: its graph, every node with a name of its own.
        tensors: what is known of its tensors.
        oracle: the parser and builder to ask.
        owners: name of a node, wherever it is -> position of the node of the main graph that it belongs to.
    """

    flow: Flow
    tensors: Tensors
    oracle: Oracle
    owners: dict[str, int]
    refused: dict[int, str] = field(default_factory=dict)
    """Position -> why no engine takes the node."""
    note: str = ""
    _built: dict[tuple[int, ...], Engine] = field(default_factory=dict)

    def run(self) -> tuple[list[Stretch], set[int], dict[tuple[int, ...], Engine]]:
        """The stretches in running order, the nodes that are too little work for an engine, and the engines."""
        flow = self.flow
        self.tensors.learn_types([*flow.makers, *flow.inputs])
        for position in flow.order:
            if why := self._unfit(position):
                self.refused[position] = why
        everything = piece(flow, flow.order)
        self._refuse(self.oracle.unsupported(cut(flow, everything, self.tensors)))
        for _ in range(_MAX_ROUNDS):
            stretches, small = schedule(flow, self.refused)
            engines = [stretch for stretch in stretches if stretch.engine]
            before = len(self.refused)
            for number, stretch in enumerate(engines):
                progress(f"trying engine part {number + 1} with {len(stretch.nodes)} nodes", number, len(engines))
                self._try(stretch.nodes)
            if len(self.refused) == before:
                break
        for stretch in stretches:
            self._explain([position for position in stretch.nodes if position in small])
        return stretches, small, self._built

    def _explain(self, nodes: Sequence[int]) -> None:
        """Has the parser say which of the nodes it refuses, although they stay in the remainder in any case."""
        for _ in range(_MAX_REASONS):
            nodes = [position for position in nodes if position not in self.refused]
            if not nodes:
                return
            part = piece(self.flow, nodes)
            self.tensors.observe(self.tensors.open_inputs(part.inputs))
            if not self._refuse(self.oracle.unsupported(cut(self.flow, part, self.tensors))):
                return

    def _unfit(self, position: int) -> str:
        """Why a node cannot be in an engine whatever the parser says: a tensor that TensorRT does not have."""
        node = self.flow.model.graph.node[position]
        names = [*self.flow.reads[position], *(name for name in node.output if name)]
        return next((why for name in names if (why := self.tensors.unfit(name))), "")

    def _refuse(self, words: dict[str, str]) -> bool:
        """Notes what the parser or builder said of nodes; whether it said something new."""
        found = {self.owners[name]: why for name, why in words.items() if name in self.owners}
        fresh = {position: why for position, why in found.items() if position in self.flow.reads}
        fresh = {position: why for position, why in fresh.items() if position not in self.refused}
        self.refused |= fresh
        return bool(fresh)

    def _try(self, nodes: Sequence[int]) -> None:
        """Builds a stretch; if that fails, one node or more of it are refused."""
        if tuple(nodes) in self._built:
            return
        if self.oracle.builds >= MAX_BUILDS:
            self.note = f"the search was stopped after {MAX_BUILDS} builds"
            self.refused |= dict.fromkeys(nodes, f"not clear whether it builds: {self.note}")
            return
        verdict = self._ask(nodes)
        if verdict.ok or self._refuse(verdict.refused):
            return
        if verdict.shape_inputs:
            why = "it reads the shape {!r}, which is only known when the part before it has run"
            for name in verdict.shape_inputs:
                self.refused |= {one: why.format(name) for one in self.flow.readers[name] if one in set(nodes)}
            return
        position = self._first_that_fails(nodes)
        if position is None:
            self.refused |= dict.fromkeys(nodes, f"{_UNCLEAR}: {verdict.words}")
        else:
            self.refused[position] = f"with it, the part does not build: {verdict.words}"

    def _ask(self, nodes: Sequence[int]) -> Verdict:
        part = piece(self.flow, nodes)
        self.tensors.observe(self.tensors.open_inputs(part.inputs))
        border = {
            one: why
            for name in (*part.inputs, *part.outputs)
            if (why := self._unfit_border(name, name in part.inputs))
            for one in self._at_border(name, nodes)
        }
        if border:
            names = {one: self.flow.model.graph.node[one].name for one in border}
            return Verdict(refused={names[one]: why for one, why in border.items()})
        if empty := self._fed_with_nothing(part):
            return Verdict(refused=empty)
        model = cut(self.flow, part, self.tensors)
        if missing := self.oracle.unsupported(model):
            return Verdict(refused=missing)
        verdict = Verdict()
        for fixed in (False, True):
            try:
                profiles = self.tensors.profiles(part.inputs, fixed=fixed)
            except UnseenError as error:
                proto = self.flow.model.graph.node
                return Verdict(refused={proto[one].name: str(error) for one in self._at_border(error.name, nodes)})
            verdict, file = self.oracle.engine(model, profiles)
            if verdict.ok:
                self._built[tuple(nodes)] = Engine(part, profiles, file)
            if verdict.ok or not profiles or verdict.refused or verdict.shape_inputs:
                break
        return verdict

    def _fed_with_nothing(self, part: Piece) -> dict[str, str]:
        """Nodes that read what was empty in a run, such as the boxes of a level that has none; no engine takes that.

        Work stays: where all there is to do is on nothing, there is nothing to do.
        """
        nodes = self.flow.model.graph.node
        return {
            nodes[one].name: f"{name!r} may be empty, and no engine takes an empty tensor"
            for name in part.inputs
            if self.tensors.was_empty(name)
            for one in self._at_border(name, part.nodes)
            if nodes[one].op_type not in WORK
        }

    def _unfit_border(self, name: str, incoming: bool) -> str:
        if why := self.tensors.unfit(name, ENGINE_TYPES):
            return f"at the border of the part, {why}"
        if incoming and self.tensors.plan_tensor(name).shape is None:
            return f"the rank of {name!r} is not known"
        return ""

    def _at_border(self, name: str, nodes: Sequence[int]) -> list[int]:
        """The nodes of a part that read or make a tensor at its border."""
        inside = set(nodes)
        if self.flow.makers.get(name) in inside:
            return [self.flow.makers[name]]
        return [one for one in self.flow.readers[name] if one in inside]

    def _first_that_fails(self, nodes: Sequence[int]) -> int | None:
        """The node with which the part stops to build, by bisection over its beginnings; None at the limit."""
        good, bad = 0, len(nodes)
        while bad - good > 1:
            if self.oracle.builds >= MAX_BUILDS:
                return None
            middle = (good + bad) // 2
            if self._ask(nodes[:middle]).ok:
                good = middle
            else:
                bad = middle
        return nodes[bad - 1]
