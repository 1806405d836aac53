"""Tests that what no broker would accept is refused before it is sent, by its name and its limit."""

from concurrent.futures import Future
from datetime import datetime
from typing import Any

import grpc
import pytest

from trunkline import Client, Error
from trunkline._limits import check_id, cost_of
from trunkline._outbox import Outbox, Outcome
from trunkline._progress import Progress
from trunkline._target import Target

CA = b"-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize(
    "target", ["127.0.0.1:50051", "http://[::1]:50051", "https://broker.example:443/", "b:1"]
)
def test_a_target_is_an_address_or_a_url(target: str) -> None:
    assert Target(target).address == target.rpartition("://")[2].rstrip("/")


@pytest.mark.parametrize(
    "target",
    ["", "broker", "http://broker", "ftp://broker:1", "b:x", "http://b:1/path", "http://me@b:1"],
)
def test_a_malformed_target_is_refused(target: str) -> None:
    with pytest.raises(Error, match="must have the form HOST:PORT, http://HOST:PORT or https://"):
        Client(target)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LOCALHOST"]
)
def test_a_token_may_go_to_this_machine_in_plaintext(host: str) -> None:
    for target in (f"{host}:50051", f"http://{host}:50051"):
        assert Target(target, token="secret").credentials is None


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "10.0.0.1", "[::]", "localhost.example", "127.0.0.1.example", "broker"],
)
def test_a_token_may_not_go_to_another_machine_in_plaintext(host: str) -> None:
    for target in (f"{host}:50051", f"http://{host}:50051"):
        with pytest.raises(Error, match="the network could read the token") as refused:
            Client(target, token="secret")
        assert refused.value.metadata["field"] == "token"
        assert "secret" not in str(refused.value)
    encrypted = Target(f"https://{host}:50051", token="secret")
    assert encrypted.credentials is not None


def test_certificates_need_encryption() -> None:
    with pytest.raises(Error, match="must begin with https://"):
        Client("http://broker:1", ca=CA)
    assert Target("broker:1", ca=CA).credentials is not None


@pytest.mark.parametrize("option", [{"token": " "}, {"ca": b""}])
def test_empty_credentials_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(Error, match=r"^(token|ca): is empty"):
        Client("127.0.0.1:1", **option)


@pytest.mark.parametrize(
    ("option", "range_"),
    [
        ({"linger": -1}, "0 to 600"),
        ({"max_batch_messages": 10_001}, "1 to 10,000"),
        ({"max_batch_bytes": 0}, "1 to 8,388,608"),
        ({"max_buffered_bytes": 1_000}, "2,097,152 to 1,073,741,824"),
        ({"retry_for": -1}, "0 to 86,400"),
    ],
)
def test_options_of_a_producer_have_ranges(option: dict[str, Any], range_: str) -> None:
    [(name, value)] = option.items()
    with pytest.raises(Error, match=f"^{name}: is {value:,}, and must be {range_}"):
        Outbox(Future[Outcome], lambda: None, **option)


@pytest.mark.parametrize(
    ("option", "range_"),
    [
        ({"max_in_flight": -1}, "0 to 2,147,483,647"),
        ({"heartbeat_interval": 0.05}, "0.1 to 60"),
    ],
)
def test_options_of_a_consumer_have_ranges(option: dict[str, Any], range_: str) -> None:
    [(name, value)] = option.items()
    with pytest.raises(Error, match=f"^{name}: is {value:,}, and must be {range_}"):
        Progress("orders", "billing", **option)


def test_ids_are_not_empty() -> None:
    with pytest.raises(Error, match="^producer_id: is empty"):
        check_id("producer_id", "")
    with pytest.raises(Error, match="^consumer_id: is empty"):
        Progress("orders", "")


def test_a_start_is_an_end_an_offset_or_a_time() -> None:
    with pytest.raises(Error, match="^start: is 'middle', and must be"):
        Progress("orders", "billing", start="middle")  # type: ignore[arg-type]
    with pytest.raises(Error, match="^start: is .* a time with a time zone"):
        Progress("orders", "billing", start=datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("message", "field", "problem"),
    [
        ({"payload": bytes(1_048_576), "key": b"k"}, "message", "is 1048577 bytes, and the limit"),
        ({"headers": {str(n): "" for n in range(65)}}, "headers", "is 65 entries, and the limit"),
        ({"headers": {"n": "v" * 16_384}}, "headers", "is 16385 bytes, and the limit is 16384"),
        ({"headers": {"é" * 128: ""}}, "headers.name", "is 256 bytes, and the limit is 255"),
        ({"headers": {"": "v"}}, "headers", "holds an empty name"),
        ({"headers": {"n": "\0"}}, "headers", "holds a NUL character"),
    ],
)
def test_a_message_over_a_limit_is_refused(
    message: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(Error) as refused:
        cost_of(**{"payload": b"", "key": None, "headers": None} | message)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.metadata["field"] == field
    assert str(refused.value).startswith(f"{field}: {problem}")


def test_a_message_of_the_wrong_type_is_refused() -> None:
    for message in (("text", None, None), (b"", "text", None), (b"", None, {"n": 7})):
        with pytest.raises(TypeError, match="must"):
            cost_of(*message)


def test_the_largest_message_fits() -> None:
    headers = {f"{n:02}": "v" * 254 for n in range(64)}
    assert cost_of(bytes(1_048_576 - 16_384), None, headers) == 1_048_576 + 100 * 65
