"""Where a broker is, and how a client connects to it."""

import ipaddress
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import grpc

from trunkline._errors import Error

CHANNEL_OPTIONS = [
    # Channels do not share a connection, whose streams would share a window.
    ("grpc.use_local_subchannel_pool", 1),
    # A channel that cannot connect pauses by itself too: by default for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Pings notice that a broker has vanished silently, even while a stream is idle.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]
#: A proxy could read what is not encrypted.
PLAINTEXT_OPTIONS = [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)]


class Target:
    """A broker, `127.0.0.1:50051` or `https://broker.example:50051` for example."""

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        ca: bytes | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """A token says who is calling.

        `ca` is the certificate, in PEM, of the authority that must have signed the broker's; by
        default, any that gRPC trusts. `credentials` replace it, if more than that is needed.
        """
        for name, given in (("token", token), ("ca", ca)):
            if given is not None and not given.strip():
                raise Error.invalid(name, "is empty")
        scheme, self.address, host = _parse(target)
        certified = ca is not None or credentials is not None
        if scheme == "http" and certified:
            raise Error.invalid("target", f"{target} is not encrypted: it must begin with https://")
        self.credentials: grpc.ChannelCredentials | None = None
        if scheme == "https" or certified:
            self.credentials = credentials or grpc.ssl_channel_credentials(ca)
        elif token and not _is_loopback(host):
            problem = f"{target} is not encrypted, so that the network could read the token"
            remedy = "it must begin with https://, or name this machine as 127.0.0.1 or localhost"
            raise Error.invalid("token", f"{problem}: {remedy}")
        #: What each call needs as its metadata: the token, if there is one.
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def open_channel(self, kind: ModuleType) -> Any:
        """A channel of grpc or of grpc.aio. It connects with its first call."""
        if self.credentials:
            return kind.secure_channel(self.address, self.credentials, CHANNEL_OPTIONS)
        return kind.insecure_channel(self.address, PLAINTEXT_OPTIONS)


def _parse(target: str) -> tuple[str, str, str]:
    """The scheme, if there is one, the address and the host of a target."""
    scheme, _, rest = target.rpartition("://")
    try:
        url = urlsplit(f"//{rest}")
        is_address = url.hostname and url.port and url.netloc == rest.rstrip("/")
    except ValueError:
        is_address = False
    if not is_address or "@" in rest or scheme not in ("", "http", "https"):
        form = "HOST:PORT, http://HOST:PORT or https://HOST:PORT"
        raise Error.invalid("target", f"is {target!r}, and must have the form {form}")
    return scheme, url.netloc, url.hostname or ""


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
