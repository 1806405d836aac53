"""Reads what the broker tells of an error beside its code and text."""

from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

Detail = TypeVar("Detail", bound=Message)


def error_detail(error: grpc.RpcError, kind: type[Detail]) -> Detail | None:
    """The first detail of a kind: google.rpc's ErrorInfo, BadRequest, RetryInfo, …"""
    # Errors of asyncio are no calls, but have all of a call that is read here.
    status = rpc_status.from_call(cast(grpc.Call, error))
    for packed in status.details if status else ():
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None
