"""Sends a token, which says who is calling, with each call."""

import grpc


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call. Without TLS, use it only for a broker on this machine."""
    return (("authorization", f"Bearer {token}"),)


def encrypted(target: str, token: str, authority: bytes | None = None) -> grpc.Channel:
    """A channel whose calls all have the token.

    The broker's certificate must be signed by this authority, in PEM, or else by one that gRPC
    trusts by itself.
    """
    tls = grpc.ssl_channel_credentials(root_certificates=authority)
    return grpc.secure_channel(
        target,
        grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(token)),
    )
