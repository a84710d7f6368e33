"""What a runtime makes of a model: whether it takes it, and what it refuses, in words that a user understands."""

from enum import StrEnum

from pydantic import Field

from components.core.contracts.base import Contract
from components.core.contracts.job import Runtime

WHOLE_MODEL = "whole model"
"""The node of a finding that is about none."""

DAMAGED = "a damaged or unusual graph"
"""What is refused of a file that nobody can read to the end."""


class Stage(StrEnum):
    """How far a model came."""

    OK = "ok"
    PARSE = "parse"
    BUILD = "build"


class Seen(StrEnum):
    """How it is known that a node is refused."""

    SAID = "said"
    """The runtime said so of the whole model."""
    LIKEWISE = "likewise"
    """The runtime stopped earlier, and said the same of this node on its own."""
    BEHIND = "behind"
    """The runtime said so after what it had refused before was cut out."""
    KNOWN = "known"
    """The runtime stopped earlier; its builder is known to refuse such a node."""
    DOCUMENTED = "documented"
    """The runtime is not here; its documentation says so."""


class Finding(Contract):
    """One thing that a runtime refuses."""

    node: str = Field(description="its name, or its operator and first output; `input NAME`; or `whole model`")
    operator: str = ""
    row: int | None = Field(default=None, description="row of the surgery table; None: no row is about it")
    rule: str = Field(description="what is refused, in plain words")
    way_out: str
    words: str = Field(default="", description="the tool's own words")
    source: str = Field(default="", description="where the tool says it: file, line and function")
    stage: Stage = Stage.PARSE
    seen: Seen = Seen.SAID
    refused: bool = Field(default=True, description="False: doubtful, and no reason to call the model refused")


class Verdict(Contract):
    """What one runtime says of one model."""

    target: Runtime
    tool: str = Field(description="what was asked: a Python module, or the documentation that was read")
    version: str = ""
    parses: bool | None = Field(description="None: not known")
    builds: bool | None = Field(default=None, description="None: not tried, or not known")
    stage: Stage = Field(description="where it ended; `ok`: everything that was tried went well")
    findings: list[Finding] = Field(default_factory=list)
    seconds: float
    note: str = ""

    @property
    def accepted(self) -> bool:
        """Whether nothing is known against the model."""
        return self.stage is Stage.OK

    @property
    def refusals(self) -> list[Finding]:
        """The findings that keep the model out."""
        return [finding for finding in self.findings if finding.refused]

    def brief(self) -> str:
        """In a few words: ``builds``, ``parses``, ``does not parse (3 findings)``."""
        if self.stage is Stage.OK:
            return {True: "builds", None: "parses" if self.parses else "no objection"}.get(self.builds, "parses")
        verb = "does not parse" if self.stage is Stage.PARSE else "parses, does not build"
        if self.refusals and all(finding.seen is Seen.DOCUMENTED for finding in self.refusals):
            verb = "documented as refused"
        count = len(self.refusals)
        return f"{verb} ({count} finding{'' if count == 1 else 's'})"
