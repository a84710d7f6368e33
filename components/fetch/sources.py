"""What the command line and the cache ask before a run: are the job's files there, and have they changed?"""

import hashlib
import json
from collections.abc import Iterator

from components.core.contracts.job import Job
from components.core.factory_code import factories, factory_files
from components.core.files import sha256_file
from components.fetch.lessons import digest_lines
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
    for factory in factories(job).values():
        for path in factory_files(factory):
            yield ["factory", path.name, sha256_file(path)]
    yield from digest_lines(plan.lessons)
    for split in plan.splits:
        yield [split.name, split.annotations.identity(by_content=True) if split.annotations else "class folders"]
        for name, image in sorted(split.images.items()):
            yield [split.name, name, image.identity(by_content=False)]
