"""Reads the details that the broker sends with an error, beside its code and text."""

from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

Detail = TypeVar("Detail", bound=Message)


def error_detail(error: grpc.RpcError, kind: type[Detail]) -> Detail | None:
    """Returns the first detail of a kind: google.rpc's ErrorInfo, BadRequest, RetryInfo, …"""
    # An error of asyncio is not a grpc.Call, but has all the methods that are used here.
    status = rpc_status.from_call(cast(grpc.Call, error))
    for packed in status.details if status else ():
        detail = kind()
        if packed.Unpack(detail):
            return detail
    return None
