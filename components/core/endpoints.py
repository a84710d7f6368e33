"""Which addresses a job may make hasten speak to.

A job is text from someone who may not run it: its endpoint must not turn a step, with the credentials and the place in
the network that it has, into a way to services that its author cannot reach (server-side request forgery). What the
*environment* names (`AWS_ENDPOINT_URL`) is the operator's choice and is not asked about.
"""

import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from components.core.errors import UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ALLOWED = "HASTEN_ALLOWED_ENDPOINTS"
"""Environment variable: the only hosts that a job may name as endpoint, separated by commas: `host`, `host:port`,
`*.domain` or a network such as `10.0.0.0/8`. Without it: every host whose addresses are all public."""
OWN = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_PORTS = {"http": 80, "https": 443}
_METADATA = frozenset(
    map(ipaddress.ip_address, ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds (AWS, Google, Azure, Alibaba, Oracle) hand out a machine's credentials and settings."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_endpoint(url: str) -> None:
    """Refuses an endpoint that a job may not name. A host that does not resolve passes: there is nothing to send to.

    Raises:
        UserError: it is no http(s) URL, holds a password, is not on the allow-list, or is an address of this machine,
            of a private network, of the link or of a cloud's metadata service, by number or by name.
    """
    parts = _parts(url)
    if parts is None:
        return  # boto3 says that it is no URL
    shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
    if parts.scheme not in _PORTS:
        raise UserError(f"the S3 endpoint {shown} is not http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise UserError(
            f"the S3 endpoint {shown} holds a user name or password; give them as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a job is copied into reports"
        )
    if _is_own(parts):
        return
    host, port = str(parts.hostname), _port(parts)
    addresses = _resolved(parts)
    for address in addresses:
        reason = refusal(host, port, address)
        if reason:
            raise UserError(f"the S3 endpoint {shown} {reason}")
    # A proxy may resolve what this machine cannot.
    if not addresses and os.environ.get(ALLOWED, "").strip() and not _named(host, port):
        raise UserError(f"the S3 endpoint {shown} is not among {ALLOWED}; add {host}:{port} to it to allow it")


def refusal(host: str, port: int, address: Address) -> str:
    """Why nothing may be sent to an address; empty if it may.

    Args:
        host: as the job names it.
        port: of the endpoint.
        address: that the host stands for.
    """
    real = _unwrapped(address)
    if real in _METADATA or real.is_link_local:
        return f"is an address of the machine's own link or of a metadata service ({real}), which is no S3 store"
    allowed = os.environ.get(ALLOWED, "").strip()
    if allowed:
        if _named(host, port) or any(real in network for network in _networks(allowed)):
            return ""
        return f"is not among {ALLOWED}; add {host}:{port} to it to allow it"
    if real.is_global and not real.is_multicast:
        return ""
    return (
        f"is inside of a private network ({real}); if it is your store, name it in AWS_ENDPOINT_URL, or set "
        f"{ALLOWED}={host}:{port}"
    )


def guard(client: "S3Client", url: str) -> None:
    """Lets a client send nothing to a refused address, whatever its host name resolves to by then.

    `check_endpoint` asks the name server before there is a connection; a hostile one answers otherwise the second time
    (DNS rebinding). So the address at the other end of each new connection is looked at before a byte is sent.
    """
    from botocore.awsrequest import (
        AWSHTTPConnection,
        AWSHTTPConnectionPool,
        AWSHTTPSConnection,
        AWSHTTPSConnectionPool,
    )

    parts = _parts(url)
    if parts is None or _is_own(parts):
        return

    def checked(connection: Any, made: socket.socket) -> socket.socket:
        if connection.proxy is not None:  # the other end is the operator's proxy
            return made
        address = ipaddress.ip_address(made.getpeername()[0].partition("%")[0])
        reason = refusal(connection.host, connection.port, address)
        if reason:
            made.close()
            raise RefusedAddressError(f"the S3 endpoint {connection.host} {reason}")
        return made

    class Http(AWSHTTPConnection):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            return checked(self, super()._new_conn())

    class Https(AWSHTTPSConnection):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            return checked(self, super()._new_conn())

    class HttpPool(AWSHTTPConnectionPool):  # type: ignore[misc]
        ConnectionCls = Http

    class HttpsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = Https

    # botocore has no public way to choose the connection class; the tests fail if this one goes.
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]
    session._manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}


class RefusedAddressError(UserError):
    """A host name led to an address that a job may not name."""


def _parts(url: str) -> SplitResult | None:
    """The URL's parts, or None where it has no host that could be spoken to."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.hostname else None


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS.get(parts.scheme, 0)


def _is_own(parts: SplitResult) -> bool:
    """Whether the operator named the same store in the environment."""
    for name in OWN:
        own = _parts(os.environ.get(name, ""))
        if own and (own.scheme, own.hostname, _port(own)) == (parts.scheme, parts.hostname, _port(parts)):
            return True
    return False


def _resolved(parts: SplitResult) -> list[Address]:
    # The system's resolver also reads the other ways to write an address: 2130706433, 0x7f.1, 127.1.
    try:
        found = socket.getaddrinfo(parts.hostname, _port(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address only carries, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _named(host: str, port: int) -> bool:
    """Whether the allow-list has the host by name."""
    host = host.lower()
    for entry in _entries(os.environ.get(ALLOWED, "")):
        name = entry.lower()
        if name in (host, f"{host}:{port}") or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


def _networks(allowed: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for entry in _entries(allowed):
        if "/" in entry:
            try:
                yield ipaddress.ip_network(entry, strict=False)
            except ValueError:
                raise UserError(
                    f"{ALLOWED}: {entry!r} is no network; accepted: host, host:port, *.domain, 10.0.0.0/8"
                ) from None


def _entries(allowed: str) -> list[str]:
    return [entry.strip() for entry in allowed.split(",") if entry.strip()]
