"""The scenarios of SCENARIOS.md about subscriptions, each through the blocking stubs and through
those of asyncio."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import BadRequest

from tests.client import Client, call, error_detail, info_of
from tests.worker import (
    Worker,
    acknowledge,
    acknowledge_all,
    create_subscription,
    get_subscription,
    one,
    receive,
    settle,
)
from trunkline.v1.message_pb2 import NewMessage
from trunkline.v1.producer_pb2 import PublishRequest
from trunkline.v1.subscription_pb2 import (
    Acknowledge,
    CreateSubscriptionRequest,
    DeleteSubscriptionRequest,
    DeliveryPolicy,
    DiscardParkedRequest,
    Extend,
    ListParkedRequest,
    ListSubscriptionsRequest,
    OffsetRange,
    ReceiveRequest,
    Reject,
    ReplayParkedRequest,
    Retry,
    Settlement,
    Stalled,
    UpdateSubscriptionRequest,
)


async def test_subscription_lifecycle(client: Client, topic: str) -> None:
    subscriptions = client.subscriptions
    created = await create_subscription(client, topic, ack_deadline=timedelta(minutes=1))

    request = CreateSubscriptionRequest(topic=topic, subscription_id="resize")
    with pytest.raises(grpc.RpcError) as again:
        await call(subscriptions.CreateSubscription, request)
    assert again.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert info_of(again.value).reason == "CONSUMER_EXISTS"
    request.if_missing = True
    existing = await call(subscriptions.CreateSubscription, request)
    assert existing.existed
    assert existing.subscription == created

    update = UpdateSubscriptionRequest(
        topic=topic,
        subscription_id="resize",
        policy=DeliveryPolicy(ack_deadline=timedelta(seconds=1), max_deliveries=3),
        update_mask=FieldMask(paths=["max_deliveries"]),
    )
    updated = (await call(subscriptions.UpdateSubscription, update)).subscription
    assert updated.policy.max_deliveries == 3
    assert updated.policy.ack_deadline.ToTimedelta() == timedelta(minutes=1)
    everything = ListSubscriptionsRequest(topic=topic)
    listed = await call(subscriptions.ListSubscriptions, everything)
    assert list(listed.subscriptions) == [updated]
    assert (await get_subscription(client, topic)).policy == updated.policy

    deletion = DeleteSubscriptionRequest(topic=topic, subscription_id="resize")
    await call(subscriptions.DeleteSubscription, deletion)
    assert not (await call(subscriptions.ListSubscriptions, everything)).subscriptions
    with pytest.raises(grpc.RpcError) as gone:
        await get_subscription(client, topic)
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert info_of(gone.value).reason == "CONSUMER_NOT_FOUND"


async def test_subscription_stream(client: Client, topic: str) -> None:
    await create_subscription(client, topic)
    payloads = [str(number).encode() for number in range(10)]
    await client.publish(topic, *payloads)

    async with Worker(client, topic) as worker:
        attached = (await worker.next()).attached
        assert attached.policy.HasField("min_backoff")
        assert attached.policy.min_backoff.ToTimedelta() == timedelta()
        assert (attached.floor, attached.head) == (0, 10)
        jobs = await worker.jobs(10)
        assert [(job.offset, job.payload) for job in jobs] == list(enumerate(payloads))
        assert {job.attempts for job in jobs} == {1}
        assert (await worker.next()).HasField("caught_up")

        delivery, done = jobs[0].delivery, Acknowledge()
        worker.settle(7, [Settlement(delivery=delivery, offsets=[7, 2], acknowledge=done)])
        ranges = [OffsetRange(first_offset=4, end_offset=6)]
        worker.settle(8, [Settlement(delivery=delivery, ranges=ranges, acknowledge=done)])
        worker.settle(9, [Settlement(delivery=delivery, offsets=[2, 3], acknowledge=done)])
        assert [await worker.settled(request_id) for request_id in (7, 8, 9)] == [2, 2, 1]
        await worker.close()

    async with Worker(client, topic) as following:
        again = await following.jobs(5)
        assert [job.offset for job in again] == [0, 1, 6, 8, 9]
        assert {job.attempts for job in again} == {2}
        following.settle(1, acknowledge_all(again))
        assert await following.settled(1) == 5
    assert (await get_subscription(client, topic)).floor == 10


async def test_subscription_two_workers(client: Client, topic: str) -> None:
    await create_subscription(client, topic)
    await client.publish(topic, *(b"a picture" for _ in range(20)))

    async with Worker(client, topic, max_outstanding_messages=10) as first:
        firsts = await first.jobs(10)
        assert [job.offset for job in firsts] == list(range(10))
        stalled = (await first.next()).stalled
        assert stalled.limit == Stalled.LIMIT_WORKER_MESSAGES
        assert stalled.outstanding_messages == 10
        async with Worker(client, topic) as second:
            seconds = await second.jobs(10)
            assert [job.offset for job in seconds] == list(range(10, 20))
            first.settle(1, acknowledge_all(firsts))
            assert await first.settled(1) == 10

        again = await first.jobs(10)
        assert [job.offset for job in again] == list(range(10, 20))
        assert {job.attempts for job in again} == {2}
        first.settle(2, acknowledge_all(again))
        assert await first.settled(2) == 10
    assert (await get_subscription(client, topic)).floor == 20


async def test_subscription_receive_and_settle(client: Client, topic: str) -> None:
    await create_subscription(client, topic)
    await client.publish(topic, b"one", b"two", b"three")

    jobs = await receive(client, topic, 3)
    retried, extended, shortened = (
        one(jobs[0], retry=Retry(delay=timedelta(milliseconds=100))),
        one(jobs[1], extend=Extend(by=timedelta(seconds=600))),
        one(jobs[2], extend=Extend(by=timedelta(seconds=1))),
    )
    assert await settle(client, topic, retried, extended, shortened) == [1, 1, 1]

    again = await receive(client, topic, 2)
    assert [(job.offset, job.attempts) for job in again] == [(0, 2), (2, 2)]
    everything = [acknowledge(job) for job in jobs + again]
    assert await settle(client, topic, *everything) == [0, 1, 0, 1, 1]
    assert (await get_subscription(client, topic)).floor == 3


async def test_subscription_parked(client: Client, topic: str) -> None:
    subscriptions = client.subscriptions
    await create_subscription(client, topic)
    await client.publish(topic, b"one", b"two")

    refused = Reject(reason="not a picture")
    rejections = [one(job, reject=refused) for job in await receive(client, topic, 2)]
    assert await settle(client, topic, *rejections) == [1, 1]
    assert (await get_subscription(client, topic)).parked_messages == 2
    page_request = ListParkedRequest(topic=topic, subscription_id="resize", page_size=1)
    for offset in range(2):
        page = await call(subscriptions.ListParked, page_request)
        [parked] = page.messages
        assert (parked.offset, parked.attempts, parked.reason) == (offset, 1, "not a picture")
        assert parked.park_time.ToDatetime().year > 2000
        page_request.page_token = page.next_page_token
    assert not page_request.page_token

    replay = ReplayParkedRequest(topic=topic, subscription_id="resize", offsets=[1])
    replayed = await call(subscriptions.ReplayParked, replay)
    assert (replayed.replayed, replayed.has_more) == (1, False)
    [again] = await receive(client, topic, 1)
    assert (again.offset, again.attempts) == (1, 1)
    assert await settle(client, topic, acknowledge(again)) == [1]

    discard = DiscardParkedRequest(topic=topic, subscription_id="resize")
    discarded = await call(subscriptions.DiscardParked, discard)
    assert (discarded.discarded, discarded.has_more) == (1, False)
    assert (await get_subscription(client, topic)).parked_messages == 0


async def test_subscription_filter(client: Client, topic: str) -> None:
    await create_subscription(client, topic, filter='headers.kind = "order" AND NOT headers:test')
    messages = [
        NewMessage(headers={"kind": "offer"}),
        NewMessage(headers={"kind": "order"}),
        NewMessage(headers={"kind": "order", "test": ""}),
        NewMessage(),
        NewMessage(headers={"kind": "order"}),
    ]
    request = PublishRequest(topic=topic, producer_id="shop", messages=messages)
    await call(client.producers.Publish, request)

    jobs = await receive(client, topic, 2)
    assert [job.offset for job in jobs] == [1, 4]
    assert sum(await settle(client, topic, *map(acknowledge, jobs))) == 2
    assert (await get_subscription(client, topic)).floor == 5


async def test_subscription_refusals(client: Client, topic: str) -> None:
    with pytest.raises(grpc.RpcError) as invalid:
        await create_subscription(client, topic, filter='headers.kind == "order"')
    assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = info_of(invalid.value)
    assert (info.reason, info.metadata["field"]) == ("INVALID_FIELD", "policy.filter")
    bad_request = error_detail(invalid.value, BadRequest)
    assert bad_request is not None
    [violation] = bad_request.field_violations
    assert violation.field == "policy.filter"
    assert "at character 14" in violation.description

    await create_subscription(client, topic)
    with pytest.raises(grpc.RpcError) as shared:
        await client.consume(topic, consumer_id="resize").rest()
    assert shared.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info_of(shared.value).reason == "CONSUMER_IS_SHARED"

    request = ReceiveRequest(topic=topic, subscription_id="billing")
    with pytest.raises(grpc.RpcError) as not_shared:
        await call(client.subscriptions.Receive, request)
    assert not_shared.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info_of(not_shared.value).reason == "NOT_A_SUBSCRIPTION"
    with pytest.raises(grpc.RpcError) as stream:
        async with Worker(client, topic, "billing") as worker:
            await worker.rest()
    assert stream.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info_of(stream.value).reason == "NOT_A_SUBSCRIPTION"
