"""What no broker would accept, and is refused before it is sent."""

from collections.abc import Mapping

from trunkline._errors import Error

MAX_MESSAGE_BYTES = 1_048_576
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16_384
MAX_HEADER_NAME_BYTES = 255

#: What a message, and each of its headers, counts for in memory besides its bytes.
OVERHEAD = 100


def check_option(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise Error.invalid(name, f"is {value:,}, and must be {least:,} to {most:,}")


def check_id(name: str, value: str) -> None:
    if not value:
        # The broker would register it under an id that it generates, and again at the next start.
        raise Error.invalid(name, "is empty")


def cost_of(payload: bytes, key: bytes | None, headers: Mapping[str, str] | None) -> int:
    """The room that a message takes up. Raises an error if a broker would refuse the message."""
    if type(payload) is bytes and key is None and headers is None:
        # Most messages are so.
        size = len(payload)
        if size <= MAX_MESSAGE_BYTES:
            return size + OVERHEAD
    if not isinstance(payload, bytes) or not (key is None or isinstance(key, bytes)):
        raise TypeError("payload and key must be bytes")
    size, overhead = len(payload), OVERHEAD
    if key:
        size += len(key)
    if headers:
        size += _checked_headers(headers)
        overhead += OVERHEAD * len(headers)
    if size > MAX_MESSAGE_BYTES:
        _refuse("message", size, MAX_MESSAGE_BYTES, "bytes")
    return size + overhead


def _checked_headers(headers: Mapping[str, str]) -> int:
    if len(headers) > MAX_HEADERS:
        _refuse("headers", len(headers), MAX_HEADERS, "entries")
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must map str to str")
        if not name or "\0" in name or "\0" in value:
            problem = "holds a NUL character" if name else "holds an empty name"
            raise Error.invalid("headers", problem)
        name_size = len(name.encode())
        if name_size > MAX_HEADER_NAME_BYTES:
            _refuse("headers.name", name_size, MAX_HEADER_NAME_BYTES, "bytes")
        size += name_size + len(value.encode())
    if size > MAX_HEADER_BYTES:
        _refuse("headers", size, MAX_HEADER_BYTES, "bytes")
    return size


def _refuse(name: str, size: int, limit: int, unit: str) -> None:
    problem = f"is {size} {unit}, and the limit is {limit}"
    raise Error.invalid(name, problem, limit=str(limit))
