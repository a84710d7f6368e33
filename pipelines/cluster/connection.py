"""The way to a Kubeflow Pipelines server, and its errors as one line each."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.errors import StepError, UserError

if TYPE_CHECKING:
    from kfp import Client

HOST = "KF_PIPELINES_ENDPOINT"
TOKEN = "HASTEN_KFP_TOKEN"  # noqa: S105 (the variable's name)
TIMEOUT = 20.0
"""Seconds that the server gets to say that it is there."""
_PORT_FORWARD = "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, then --host http://localhost:8080"


class UnreachableError(UserError):
    """No server answers at the address."""


@dataclass(frozen=True)
class Server:
    """A KFP server as the user names it; the token shows in no message."""

    host: str
    namespace: str = ""
    """Profile namespace of a multi-user Kubeflow; empty on a single-user one."""
    token: str = field(default="", repr=False)
    ca_cert: Path | None = None

    @staticmethod
    def of(host: str, namespace: str, token_file: Path | None, ca_cert: Path | None) -> "Server":
        """From command-line options and the environment; a token never stands on a command line.

        Raises:
            UserError: no host, or a file that cannot be read.
        """
        host = (host or os.environ.get(HOST, "")).rstrip("/")
        if not host.startswith(("http://", "https://")):
            raise UserError(
                f"--host: given {host!r}, accepted: the http(s) address of Kubeflow Pipelines (or set {HOST}); from "
                f"outside the cluster: {_PORT_FORWARD}"
            )
        for option, path in (("--token-file", token_file), ("--ca-cert", ca_cert)):
            if path is not None and not path.is_file():
                raise UserError(f"{option}: {path} is no file")
        token = token_file.read_text().strip() if token_file else os.environ.get(TOKEN, "")
        return Server(host, namespace, token, ca_cert)


def connect(server: Server) -> "Client":
    """A client of a server that answers.

    Raises:
        UserError: it does not answer, or refuses the token.
    """
    import kfp
    import kfp_server_api

    configuration = kfp_server_api.Configuration(host=server.host)
    configuration.ssl_ca_cert = str(server.ca_cert) if server.ca_cert else None
    if server.token:
        configuration.api_key["authorization"] = server.token
        configuration.api_key_prefix["authorization"] = "Bearer"
    # Asked once and first: kfp.Client asks five times, with five seconds between.
    with speaking_to(server):
        health = kfp_server_api.HealthzServiceApi(kfp_server_api.ApiClient(configuration))
        multi_user = health.healthz_service_get_healthz(_request_timeout=TIMEOUT).multi_user
        if multi_user and not server.namespace:
            raise UserError(f"--namespace: {server.host} serves several users; give your profile's namespace")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Without a namespace given, the client would ask for the server's health again; "" is what it then keeps.
            client = kfp.Client(
                host=server.host,
                namespace=server.namespace or "kubeflow",
                existing_token=server.token or None,
                ssl_ca_cert=configuration.ssl_ca_cert,
                ui_host=server.host,
            )
    return client


@contextlib.contextmanager
def speaking_to(server: Server) -> Iterator[None]:
    """Turns what goes wrong between here and the server into one line, and keeps the client from printing.

    Raises:
        UnreachableError: the server is not there.
        UserError: it refuses what is asked.
        StepError: the server itself fails.
    """
    import kfp_server_api
    import urllib3

    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except kfp_server_api.ApiException as error:
        raise _explained(error, server) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise UnreachableError(
            f"no Kubeflow Pipelines at {server.host} ({_root(error)}); give --host, or from outside the cluster: "
            f"{_PORT_FORWARD}"
        ) from error
    finally:
        logging.disable(level)


def _explained(error: Any, server: Server) -> Exception:
    """The server's refusal with the way out."""
    words = _words(error)
    if error.status == 401:
        return UserError(f"{server.host} does not know you (401): set {TOKEN} or --token-file to a valid token{words}")
    if error.status == 403:
        where = f"in namespace {server.namespace!r}" if server.namespace else "without a namespace"
        return UserError(
            f"{server.host} does not let you do this {where} (403): check --namespace and your role{words}"
        )
    if error.status == 404:
        return UserError(
            f"{server.host} does not have it (404): check --host, which must be Kubeflow Pipelines 2{words}"
        )
    if error.status == 409:
        return UserError(f"{server.host} has one of that name already (409){words}")
    if error.status == 400:
        return UserError(f"{server.host} refuses the request (400){words}")
    return StepError(f"{server.host} failed ({error.status or 'no status'}); try again{words}")


def _words(error: Any) -> str:
    """What the server said, in at most one line; gateways answer with pages, which help no one."""
    try:
        document = json.loads(error.body)
        text = str(document.get("error") or document.get("message") or "")
    except (TypeError, ValueError, AttributeError):
        return ""
    line = " ".join(text.split())[:300]
    return f": {line}" if line else ""


def _root(error: BaseException) -> str:
    """The innermost cause: the connection pool wraps it in layers of its own."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _root(reason)
    return " ".join(str(error).split())[-200:] or type(error).__name__
