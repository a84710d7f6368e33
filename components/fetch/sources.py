"""What the command line and the cache ask before a run: are the job's files there, and have they changed?"""

import hashlib
import importlib.machinery
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from components.core.contracts.job import Job
from components.core.files import sha256_file
from components.fetch.lookup import Sources
from components.fetch.plan import Plan, plan_fetch


def check_sources(job: Job) -> None:
    """Refuses a job whose files are missing or unsound, before any work.

    Raises:
        UserError: see `plan_fetch`.
    """
    plan_fetch(job, Sources())


def source_digest(job: Job) -> str:
    """Hex digest of everything the job refers to: it changes when the model, its factory or the data does.

    Content counts for the model, the factory's own code and the annotations; of local images size and time, which is
    cheap; of anything in S3 the ETag.

    Raises:
        UserError: see `plan_fetch`.
    """
    plan = plan_fetch(job, Sources())
    digest = hashlib.sha256()
    for line in _digest_lines(job, plan):
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def _digest_lines(job: Job, plan: Plan) -> Iterator[list[str]]:
    for target, source in plan.model.items():
        yield ["model", str(target), source.identity(by_content=True)]
    if job.model.factory:
        for path in factory_files(job.model.factory):
            yield ["factory", path.name, sha256_file(path)]
    for split in plan.splits:
        yield [split.name, split.annotations.identity(by_content=True) if split.annotations else "class folders"]
        for name, image in sorted(split.images.items()):
            yield [split.name, name, image.identity(by_content=False)]


def factory_files(factory: str) -> list[Path]:
    """Source files of the user's code that a factory comes from, found without importing it.

    For a package of the user's that is all of its `.py` files; for an installed one only the factory's module.
    """
    parts = factory.partition(":")[0].split(".")
    package: list[str] = []
    spec, search = None, None
    for end in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:end]), search)
        if spec is None:
            return []
        search = list(spec.submodule_search_locations or [])
        package = search if end == 1 else package
    module = Path(spec.origin) if spec and spec.origin else None
    if module is None or not module.is_file():
        return []
    installed = [Path(folder) for folder in sysconfig.get_paths().values()]
    if not package or any(module.is_relative_to(folder) for folder in installed):
        return [module]
    return sorted(path for folder in package for path in Path(folder).rglob("*.py"))
