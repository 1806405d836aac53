"""A client for asyncio."""

from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import TypeVar

import grpc
from grpc import aio

from trunkline._errors import Error
from trunkline._target import Target
from trunkline.v1.topic_pb2 import CreateTopicRequest, Retention, Topic
from trunkline.v1.topic_pb2_grpc import TopicServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")


class Client(Target, AbstractAsyncContextManager["Client"]):
    """Calls a broker. Its channel is for stubs; each producer and consumer has one of its own."""

    @cached_property
    def channel(self) -> aio.Channel:
        channel: aio.Channel = self.open_channel(aio)
        return channel

    async def call(
        self,
        method: aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float = 30,
    ) -> Response:
        """Calls a stub's method with the client's token; raises `Error` if that fails."""
        try:
            return await method(request, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            raise Error.of(error) from error

    async def ensure_topic(
        self, name: str, *, description: str = "", retention: Retention | None = None
    ) -> Topic:
        """Creates a topic unless it exists. What is given must not differ from what exists."""
        request = CreateTopicRequest(topic=name, description=description, retention=retention)
        request.if_missing = True
        return (await self.call(TopicServiceStub(self.channel).CreateTopic, request)).topic

    async def close(self) -> None:
        await self.channel.close()

    async def __aexit__(self, *_: object) -> None:
        await self.close()
