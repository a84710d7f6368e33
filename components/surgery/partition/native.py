"""NVIDIA's parser and builder, asked about one ONNX file; only ever used in a process that may die of it."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.contracts.run_plan import Profile
from components.core.tensorrt_tools.session import Session, onnx_node, strongly_typed
from components.core.tensorrt_tools.words import plain, shortened_words


@dataclass
class Verdict:
    """What the parser and the builder made of a file."""

    ok: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    """Name of a node -> why it cannot be in an engine."""
    words: str = ""
    """Why there is no engine, where no node is to blame."""
    shape_inputs: list[str] = field(default_factory=list)
    """Inputs that are read as a shape; their values would have to be known when the engine is built."""


class Native:
    """One of the modules.

    Args:
        module: `tensorrt_rtx` or `tensorrt`.
        trace: file that names the node that is being parsed, in case the process dies of it.
    """

    def __init__(self, module: str, trace: Path) -> None:
        warnings.simplefilter("ignore", DeprecationWarning)
        self._module, self._trace = module, trace
        self.version = f"{module} {self._session().trt.__version__}"

    def unsupported(self, path: Path, names: Sequence[str]) -> dict[str, str]:
        """Nodes outside the parser's list of supported subgraphs.

        Args:
            path: ONNX file.
            names: of its nodes, in order.

        Returns:
            Name -> the parser's words. Empty also where the parser has no list, as of a model that it cannot read.
        """
        session = self._session()
        network = session.builder.create_network(strongly_typed(session.trt))
        parser = session.trt.OnnxParser(network, session.builder.logger)
        parser.supports_model_v2(path.read_bytes(), str(path))
        found = _errors((parser.get_error(index) for index in range(parser.num_errors)), names)
        listed = {position for index in range(parser.num_subgraphs) for position in parser.get_subgraph_nodes(index)}
        if listed:
            outside = (name for position, name in enumerate(names) if position not in listed)
            found = dict.fromkeys(outside, "the parser lists it in no supported subgraph") | found
        return found

    def engine(self, path: Path, names: Sequence[str], profiles: Mapping[str, Profile]) -> tuple[Verdict, bytes]:
        """Parses and builds.

        Args:
            path: ONNX file.
            names: of its nodes, in order.
            profiles: for inputs with open sizes.
        """
        session = self._session()
        parsed = session.parse(path)
        if not parsed.ok:
            refused = _errors(parsed.errors, names)
            return Verdict(refused=refused, words="" if refused else _first(session.log, "it was not parsed")), b""
        network = parsed.network
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        plugins = [onnx_node(layer) for layer in layers if layer.type.name.startswith("PLUGIN")]
        if plugins:
            why = "only a plugin does it, which other machines may lack"
            named = {found: why for name in plugins if (found := _node_of(name, names))}
            return Verdict(refused=named, words="" if named else f"it has {len(plugins)} plugins"), b""
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        shapes = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
        if shapes:
            return Verdict(shape_inputs=shapes), b""
        config = session.builder.create_builder_config()
        wanted = {tensor.name: profiles[tensor.name] for tensor in inputs if tensor.name in profiles}
        if wanted:
            profile = session.builder.create_optimization_profile()
            for name, sizes in wanted.items():
                profile.set_shape(name, sizes.minimum, sizes.usual, sizes.maximum)
            config.add_optimization_profile(profile)
        engine = session.build(network, config)
        if engine is not None:
            return Verdict(ok=True), bytes(memoryview(engine))
        for words in session.log:
            if found := _blamed(words, layers, names):
                return Verdict(refused={found: f"it parses and does not build: {shortened_words(plain(words))}"}), b""
        return Verdict(words=_first(session.log, "it was not built")), b""

    def _session(self) -> Session:
        """A builder of its own for each question, since an error may leave something behind in it."""
        return Session(self._module, self._trace)


def _errors(errors: Iterable[Any], names: Sequence[str]) -> dict[str, str]:
    """Name of a node -> the parser's words; inside an If or Loop, it is the inner node that is named."""
    found: dict[str, str] = {}
    for error in errors:
        name = error.node_name()
        if not name and 0 <= error.node() < len(names):
            name = names[error.node()]
        if name:
            operator = f"{error.node_operator()}: " if name not in names else ""
            found.setdefault(name, operator + shortened_words(plain(error.desc())))
    return found


def _first(log: Sequence[str], otherwise: str) -> str:
    return shortened_words(plain(log[0])) if log else otherwise


def _blamed(words: str, layers: Sequence[Any], names: Sequence[str]) -> str:
    """The node that the builder's words name, by its layer or by itself; empty where none is named."""
    by_layer = {layer.name: onnx_node(layer) for layer in layers if layer.name}
    layer = _named(words, list(by_layer))
    return _node_of(by_layer.get(layer, ""), names) or _named(words, names)


def _named(words: str, names: Sequence[str]) -> str:
    """The longest of the names that stands alone in the words; empty where none does."""
    found = [name for name in names if name in words and re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", words)]
    return max(found, key=len, default="")


def _node_of(noted: str, names: Sequence[str]) -> str:
    """The node that a layer's note means: the note may have something behind the node's name."""
    return noted if noted in names else max((name for name in names if noted.startswith(name)), key=len, default="")
