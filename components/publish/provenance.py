"""Where a version comes from: what a person needs to find the run again that made it."""

from pydantic import Field

from components.core.contracts.base import Contract

PROVENANCE = "provenance.json"


class Provenance(Contract):
    """`provenance.json`, beside the report in a version's folder; a text is empty where it is not known."""

    run_id: str = Field(default="", description="of the run that published the version")
    source_digest: str = Field(default="", description="hash of the model and data files that the run was given")
    code_version: str = Field(default="", description="of the code that made the model")
    replaced: str = Field(
        default="", description="version that it was measured against and better than; of a retraining"
    )
