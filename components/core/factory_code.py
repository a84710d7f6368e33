"""The source files that a factory's model comes from, found without running them."""

import hashlib
import importlib.machinery
import sysconfig
from pathlib import Path

from components.core.contracts.job import Job
from components.core.files import sha256_file


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


def factory_digest(factory: str | None) -> str:
    """Hex digest of `factory_files`; empty where there is no factory."""
    if not factory:
        return ""
    lines = [f"{path.name} {sha256_file(path)}" for path in factory_files(factory)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def factories(job: Job) -> dict[str, str]:
    """Every factory that a job names, by its field."""
    named = {"model.factory": job.model.factory}
    if job.distill:
        named["distill.student.factory"] = job.distill.student.factory
        named |= {f"distill.teachers.{number}.factory": one.factory for number, one in enumerate(job.distill.teachers)}
    return {field: factory for field, factory in named.items() if factory}
