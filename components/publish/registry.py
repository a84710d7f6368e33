"""Registers a version in Kubeflow's Model Registry: model, version, artifact; each only if it is not there.

The version's name is the hash of its content, so that the same content is one version however often it is registered,
and a registration that broke off is completed by the next one. The client is the registry's own, made from its API.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from components.core.contracts.job import Runtime
from components.core.endpoints import ALLOWED, check_endpoint
from components.core.errors import StepError, UserError
from components.core.files import shortened
from components.core.s3 import public_url
from components.publish.facts import facts_of
from components.publish.published import Published

if TYPE_CHECKING:
    from mr_openapi import MetadataValue, ModelRegistryServiceApi

T = TypeVar("T")
URL = "HASTEN_REGISTRY_URL"
TOKEN = "HASTEN_REGISTRY_TOKEN"  # noqa: S105  (the variable's name)
TOKEN_FILE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105
CA_CERT = "HASTEN_REGISTRY_CA"
TIMEOUT = 30.0
"""Seconds for an answer."""
AUTHOR = "hasten"
FORMATS = {
    Runtime.ONNXRUNTIME: "onnx",
    Runtime.OPENVINO: "openvino",
    Runtime.TENSORRT: "tensorrt",
    Runtime.TENSORRT_RTX: "tensorrt-rtx",
    Runtime.TORCH: "pytorch",
}


@dataclass(frozen=True)
class Registry:
    """A Model Registry server; the token shows in no message."""

    url: str
    token: str = field(default="", repr=False)
    ca_cert: Path | None = None

    @staticmethod
    def of(url: str) -> "Registry":
        """With the token and the certificates that the environment names.

        ``HASTEN_REGISTRY_TOKEN`` is a bearer token, ``KF_PIPELINES_SA_TOKEN_PATH`` (set in pods of Kubeflow) the file
        of one, ``HASTEN_REGISTRY_CA`` a file with the CA certificates of the server.

        Raises:
            UserError: the address, the extra or a file is missing.
        """
        import importlib.util

        if not url.startswith(("http://", "https://")) or not url.partition("://")[2]:
            raise UserError(f"the registry {shortened(url)} is no address; write http(s)://host[:port]")
        if importlib.util.find_spec("mr_openapi") is None:
            raise UserError(
                "the Python package model_registry is not installed; it comes with: pip install 'hasten[registry]'"
            )
        token = os.environ.get(TOKEN, "")
        token_file, ca_cert = (os.environ.get(name) for name in (TOKEN_FILE, CA_CERT))
        for name, given in ((TOKEN_FILE, token_file), (CA_CERT, ca_cert)):
            if given and not Path(given).is_file() and not (name == TOKEN_FILE and token):
                raise UserError(f"{name}: {given} is no file")
        if not token and token_file:
            token = Path(token_file).read_text().strip()
        return Registry(url.rstrip("/"), token, Path(ca_cert) if ca_cert else None)

    @staticmethod
    def of_job(url: str) -> "Registry":
        """The registry that a job names, which whoever runs the job need not have looked at.

        The token goes only to the one that the operator names in ``HASTEN_REGISTRY_URL``. Any other must be where
        a job's S3 endpoint may be (`check_endpoint`), and gets none.

        Raises:
            UserError: a job may not name it, or as of `of`.
        """
        if _place(url) == _place(os.environ.get(URL, "")):
            return Registry.of(url)
        try:
            check_endpoint(url)
        except UserError as error:
            raise UserError(
                f"publish.registry: a job may not name {public_url(url)}; if it is your registry, set {URL} to it or "
                f"add it to {ALLOWED}"
            ) from error
        return replace(Registry.of(url), token="")

    @property
    def shown(self) -> str:
        """The address without a user name or password."""
        return public_url(self.url)


class Registered(NamedTuple):
    """What the registry holds now."""

    model_id: str
    version_id: str
    artifact_id: str
    new: bool
    """Whether anything of it had to be made."""


def _place(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", url, None


def register(published: Published, registry: Registry) -> Registered:
    """Registers a version with its provenance and what was measured.

    Raises:
        UserError: the registry is not there, or refuses.
        StepError: the registry itself fails.
    """
    return _asked(registry, lambda api: _register(api, published))


def check_registry(registry: Registry) -> None:
    """Refuses a registry that does not answer or does not know us, before any work.

    Raises:
        UserError: one line that says why.
        StepError: the registry itself fails.
    """
    _asked(registry, lambda api: api.get_registered_models(page_size="1", _request_timeout=TIMEOUT))


async def _register(api: "ModelRegistryServiceApi", published: Published) -> Registered:
    from mr_openapi import ModelVersionCreate, RegisteredModelCreate

    manifest = published.manifest
    facts = facts_of(published)
    made = 0

    async def find_or_make(find: Callable[[], Awaitable[Any]], make: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal made
        found = await _found(find)
        if found is not None:
            return found
        made += 1
        return await _made(make, find)

    model = await find_or_make(
        lambda: api.find_registered_model(name=manifest.name, _request_timeout=TIMEOUT),
        lambda: api.create_registered_model(
            RegisteredModelCreate(name=manifest.name, owner=AUTHOR, description="Made fast enough to ship by hasten"),
            _request_timeout=TIMEOUT,
        ),
    )
    version = await find_or_make(
        lambda: api.find_model_version(name=manifest.version, parent_resource_id=model.id, _request_timeout=TIMEOUT),
        lambda: api.create_model_version(
            ModelVersionCreate(
                name=manifest.version,
                registered_model_id=model.id,
                author=AUTHOR,
                description=published.board.why if published.board and published.board.why else None,
                custom_properties={name: _property(value) for name, value in facts.items()},
            ),
            _request_timeout=TIMEOUT,
        ),
    )
    artifact = await find_or_make(
        lambda: api.find_model_artifact(name=manifest.name, parent_resource_id=version.id, _request_timeout=TIMEOUT),
        lambda: _add_artifact(api, published, version.id, str(facts.get("runtime_version", ""))),
    )
    return Registered(str(model.id), str(version.id), str(artifact.id), new=made > 0)


async def _add_artifact(
    api: "ModelRegistryServiceApi", published: Published, version_id: str, runtime_version: str
) -> Any:
    from mr_openapi import Artifact, ModelArtifact

    manifest = published.manifest
    known = bool(published.provenance.run_id)
    answer = await api.upsert_model_version_artifact(
        version_id,
        Artifact(
            ModelArtifact(
                name=manifest.name,
                artifact_type="model-artifact",
                uri=f"{published.uri}/{manifest.model}",
                model_format_name=FORMATS[manifest.runtime],
                model_format_version=runtime_version or None,
                model_source_kind="kfp" if known else None,
                model_source_class="pipelinerun" if known else None,
                model_source_id=published.provenance.run_id or None,
            )
        ),
        _request_timeout=TIMEOUT,
    )
    return answer.actual_instance


async def _found(find: Callable[[], Awaitable[Any]]) -> Any:
    from mr_openapi.exceptions import NotFoundException

    try:
        return await find()
    except NotFoundException:
        return None


async def _made(make: Callable[[], Awaitable[Any]], find: Callable[[], Awaitable[Any]]) -> Any:
    """Makes it; where another registration was faster, what that one made."""
    from mr_openapi.exceptions import ConflictException

    try:
        return await make()
    except ConflictException:
        found = await _found(find)
        if found is None:
            raise
        return found


def _property(value: object) -> "MetadataValue":
    from mr_openapi import MetadataBoolValue, MetadataDoubleValue, MetadataIntValue, MetadataStringValue, MetadataValue

    match value:
        case bool():
            return MetadataValue(MetadataBoolValue(bool_value=value, metadata_type="MetadataBoolValue"))
        case int():
            return MetadataValue(MetadataIntValue(int_value=str(value), metadata_type="MetadataIntValue"))
        case float():
            return MetadataValue(MetadataDoubleValue(double_value=value, metadata_type="MetadataDoubleValue"))
        case _:
            return MetadataValue(MetadataStringValue(string_value=str(value), metadata_type="MetadataStringValue"))


def _asked(registry: Registry, work: "Callable[[ModelRegistryServiceApi], Awaitable[T]]") -> T:
    """Does the work with a client; what goes wrong becomes one line."""
    import aiohttp
    from mr_openapi import ApiClient, Configuration, ModelRegistryServiceApi
    from mr_openapi.exceptions import ApiException

    async def ask() -> T:
        configuration = Configuration(
            host=registry.url,
            access_token=registry.token or None,
            ssl_ca_cert=str(registry.ca_cert) if registry.ca_cert else None,
        )
        client = ApiClient(configuration)
        try:
            return await work(ModelRegistryServiceApi(client))
        finally:
            await client.close()

    try:
        # In a thread of its own, since the caller may be in an event loop already, as a notebook is.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(ask())).result()
    except ApiException as error:
        raise _explained(error, registry) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        words = " ".join(str(error).split())[-200:] or type(error).__name__
        raise UserError(f"no Model Registry at {registry.shown} ({words}); check the address") from error
    except ValueError as error:  # an answer that is not of the registry's API
        raise UserError(f"{registry.shown} does not answer like a Model Registry; check the address") from error


def _explained(error: Any, registry: Registry) -> Exception:
    words = _words(error)
    if error.status == 401:
        return UserError(f"{registry.shown} does not know you (401): set {TOKEN} to a valid token{words}")
    if error.status == 403:
        return UserError(f"{registry.shown} does not let you register models (403): check your role{words}")
    if error.status == 404:
        return UserError(f"{registry.shown} does not have it (404): it must be a Model Registry with the API v1{words}")
    if error.status is not None and 400 <= error.status < 500:
        return UserError(f"{registry.shown} refuses the request ({error.status}){words}")
    return StepError(f"{registry.shown} failed ({error.status or 'no status'}); try again{words}")


def _words(error: Any) -> str:
    """What the server said, in at most one line; gateways answer with pages, which help no one."""
    try:
        text = str(json.loads(error.body).get("message") or "")
    except (TypeError, ValueError, AttributeError):
        return ""
    line = " ".join(text.split())[:300]
    return f": {line}" if line else ""
