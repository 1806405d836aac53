package io.trunkline.examples;

import static com.google.protobuf.ByteString.copyFromUtf8;
import static io.trunkline.examples.Refusals.assertRefused;
import static io.trunkline.examples.Refusals.violation;
import static io.trunkline.examples.TestSubscription.RESIZE;
import static io.trunkline.examples.TestSubscription.offsets;
import static io.trunkline.examples.TestSubscription.seconds;
import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Duration;
import com.google.protobuf.FieldMask;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.trunkline.examples.TestSubscription.Job;
import io.trunkline.v1.Acknowledge;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.CreateSubscriptionRequest;
import io.trunkline.v1.DeleteSubscriptionRequest;
import io.trunkline.v1.DeliveryPolicy;
import io.trunkline.v1.DiscardParkedRequest;
import io.trunkline.v1.Extend;
import io.trunkline.v1.ListParkedRequest;
import io.trunkline.v1.ListSubscriptionsRequest;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.OffsetRange;
import io.trunkline.v1.OpenSubscription;
import io.trunkline.v1.ReceiveRequest;
import io.trunkline.v1.Reject;
import io.trunkline.v1.ReplayParkedRequest;
import io.trunkline.v1.Retry;
import io.trunkline.v1.Settlement;
import io.trunkline.v1.Stalled;
import io.trunkline.v1.SubscribeResponse.EventCase;
import io.trunkline.v1.UpdateSubscriptionRequest;
import java.util.List;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

class SubscriptionTest {
    @Test
    void subscriptionLifecycle() throws Exception {
        var topic = TestTopic.create();
        var subscription = new TestSubscription(topic);
        var request = CreateSubscriptionRequest.newBuilder()
                .setTopic(topic.name())
                .setSubscriptionId(RESIZE)
                .setPolicy(DeliveryPolicy.newBuilder().setAckDeadline(seconds(60)))
                .build();
        var created = topic.subscriptions().createSubscription(request).getSubscription();
        assertRefused(Code.ALREADY_EXISTS, "CONSUMER_EXISTS", assertThrows(
                StatusException.class, () -> topic.subscriptions().createSubscription(request)));
        var again = topic.subscriptions().createSubscription(request.toBuilder().setIfMissing(true).build());
        assertTrue(again.getExisted());
        assertEquals(created, again.getSubscription());

        var updated = topic.subscriptions()
                .updateSubscription(UpdateSubscriptionRequest.newBuilder()
                        .setTopic(topic.name())
                        .setSubscriptionId(RESIZE)
                        .setPolicy(DeliveryPolicy.newBuilder()
                                .setAckDeadline(seconds(1))
                                .setMaxDeliveries(3))
                        .setUpdateMask(FieldMask.newBuilder().addPaths("max_deliveries"))
                        .build())
                .getSubscription();
        assertEquals(3, updated.getPolicy().getMaxDeliveries());
        assertEquals(seconds(60), updated.getPolicy().getAckDeadline());
        var list = ListSubscriptionsRequest.newBuilder().setTopic(topic.name()).build();
        assertEquals(List.of(updated), topic.subscriptions().listSubscriptions(list).getSubscriptionsList());
        assertEquals(updated.getPolicy(), subscription.describe().getPolicy());

        topic.subscriptions().deleteSubscription(DeleteSubscriptionRequest.newBuilder()
                .setTopic(topic.name())
                .setSubscriptionId(RESIZE)
                .build());
        assertEquals(List.of(), topic.subscriptions().listSubscriptions(list).getSubscriptionsList());
        assertRefused(Code.NOT_FOUND, "CONSUMER_NOT_FOUND", assertThrows(
                StatusException.class, subscription::describe));
    }

    @Test
    void subscriptionStream() throws Exception {
        var subscription = TestSubscription.create();
        subscription.topic().publish(numbered(0, 10));

        try (var worker = subscription.work()) {
            var attached = worker.next().getAttached();
            assertTrue(attached.getPolicy().hasMinBackoff());
            assertEquals(seconds(0), attached.getPolicy().getMinBackoff());
            assertEquals(0, attached.getFloor());
            assertEquals(10, attached.getHead());
            var jobs = worker.jobs(10);
            for (var i = 0; i < 10; i++) {
                var delivery = jobs.get(0).delivery();
                assertEquals(new Job(delivery, i, 1, "message " + i), jobs.get(i));
            }
            assertEquals(EventCase.CAUGHT_UP, worker.next().getEventCase());

            var done = Settlement.newBuilder()
                    .setDelivery(jobs.get(0).delivery())
                    .setAcknowledge(Acknowledge.getDefaultInstance())
                    .build();
            var range = OffsetRange.newBuilder().setFirstOffset(4).setEndOffset(6);
            worker.settle(7, List.of(done.toBuilder().addOffsets(7).addOffsets(2).build()));
            worker.settle(8, List.of(done.toBuilder().addRanges(range).build()));
            worker.settle(9, List.of(done.toBuilder().addOffsets(2).addOffsets(3).build()));
            assertEquals(2, worker.settled(7));
            assertEquals(2, worker.settled(8));
            assertEquals(1, worker.settled(9));
            worker.end();
        }

        try (var next = subscription.work()) {
            var again = next.jobs(5);
            assertEquals(List.of(0L, 1L, 6L, 8L, 9L), offsets(again));
            assertTrue(again.stream().allMatch(job -> job.attempts() == 2));
            next.acknowledgeAll(1, again);
            assertEquals(5, next.settled(1));
        }
        assertEquals(10, subscription.describe().getFloor());
    }

    @Test
    void subscriptionTwoWorkers() throws Exception {
        var subscription = TestSubscription.create();
        subscription.topic().publish(numbered(0, 20));
        var seconds = LongStream.range(10, 20).boxed().toList();

        try (var first = subscription.work(OpenSubscription.newBuilder().setMaxOutstandingMessages(10))) {
            var firsts = first.jobs(10);
            assertEquals(LongStream.range(0, 10).boxed().toList(), offsets(firsts));
            var stalled = first.next().getStalled();
            assertEquals(Stalled.Limit.LIMIT_WORKER_MESSAGES, stalled.getLimit());
            assertEquals(10, stalled.getOutstandingMessages());
            try (var second = subscription.work()) {
                assertEquals(seconds, offsets(second.jobs(10)));
                first.acknowledgeAll(1, firsts);
                assertEquals(10, first.settled(1));
            }

            var again = first.jobs(10);
            assertEquals(seconds, offsets(again));
            assertTrue(again.stream().allMatch(job -> job.attempts() == 2));
            first.acknowledgeAll(2, again);
            assertEquals(10, first.settled(2));
        }
        assertEquals(20, subscription.describe().getFloor());
    }

    @Test
    void subscriptionReceiveAndSettle() throws Exception {
        var subscription = TestSubscription.create();
        subscription.topic().publish(numbered(0, 3));

        var jobs = subscription.receive(3);
        var retry = Retry.newBuilder().setDelay(Duration.newBuilder().setNanos(100_000_000));
        var longer = Extend.newBuilder().setBy(seconds(600));
        var shorter = Extend.newBuilder().setBy(seconds(1));
        assertEquals(List.of(1, 1, 1), subscription.settle(List.of(
                jobs.get(0).settlement().setRetry(retry).build(),
                jobs.get(1).settlement().setExtend(longer).build(),
                jobs.get(2).settlement().setExtend(shorter).build())));

        var again = subscription.receive(2);
        assertEquals(List.of(0L, 2L), offsets(again));
        assertTrue(again.stream().allMatch(job -> job.attempts() == 2));
        var all = Stream.concat(jobs.stream(), again.stream()).map(Job::acknowledge).toList();
        assertEquals(List.of(0, 1, 0, 1, 1), subscription.settle(all));
        assertEquals(3, subscription.describe().getFloor());
    }

    @Test
    void subscriptionParked() throws Exception {
        var subscription = TestSubscription.create();
        subscription.topic().publish(numbered(0, 2));

        var reject = Reject.newBuilder().setReason("not a picture");
        var rejections = subscription.receive(2).stream()
                .map(job -> job.settlement().setReject(reject).build())
                .toList();
        assertEquals(List.of(1, 1), subscription.settle(rejections));
        assertEquals(2, subscription.describe().getParkedMessages());
        var list = ListParkedRequest.newBuilder()
                .setTopic(subscription.topicName())
                .setSubscriptionId(RESIZE)
                .setPageSize(1);
        for (var offset = 0; offset < 2; offset++) {
            var page = subscription.calls().listParked(list.build());
            assertEquals(1, page.getMessagesCount());
            var parked = page.getMessages(0);
            assertEquals(offset, parked.getOffset());
            assertEquals(1, parked.getAttempts());
            assertEquals("not a picture", parked.getReason());
            assertTrue(parked.getParkTime().getSeconds() > 0);
            list.setPageToken(page.getNextPageToken());
        }
        assertEquals("", list.getPageToken());

        var replayed = subscription.calls().replayParked(ReplayParkedRequest.newBuilder()
                .setTopic(subscription.topicName())
                .setSubscriptionId(RESIZE)
                .addOffsets(1)
                .build());
        assertEquals(1, replayed.getReplayed());
        var again = subscription.receive(1).get(0);
        assertEquals(1, again.offset());
        assertEquals(1, again.attempts());
        assertEquals(List.of(1), subscription.settle(List.of(again.acknowledge())));

        var discarded = subscription.calls().discardParked(DiscardParkedRequest.newBuilder()
                .setTopic(subscription.topicName())
                .setSubscriptionId(RESIZE)
                .build());
        assertEquals(1, discarded.getDiscarded());
        assertEquals(0, subscription.describe().getParkedMessages());
    }

    @Test
    void subscriptionFilter() throws Exception {
        var filter = "headers.kind = \"order\" AND NOT headers:test";
        var subscription = TestSubscription.create(DeliveryPolicy.newBuilder().setFilter(filter));
        var order = NewMessage.newBuilder().putHeaders("kind", "order").setPayload(copyFromUtf8("one")).build();
        subscription.topic().publish(List.of(
                NewMessage.newBuilder().putHeaders("kind", "offer").build(),
                order,
                order.toBuilder().putHeaders("test", "").build(),
                NewMessage.getDefaultInstance(),
                order));

        var jobs = subscription.receive(2);
        assertEquals(List.of(1L, 4L), offsets(jobs));
        assertEquals(List.of(1, 1), subscription.settle(jobs.stream().map(Job::acknowledge).toList()));
        assertEquals(5, subscription.describe().getFloor());
    }

    @Test
    void subscriptionRefusals() throws Exception {
        var subscription = TestSubscription.create();
        var topic = subscription.topic();
        var misplaced = CreateSubscriptionRequest.newBuilder()
                .setTopic(topic.name())
                .setPolicy(DeliveryPolicy.newBuilder().setFilter("headers.kind == \"order\""))
                .build();
        var invalid = assertThrows(
                StatusException.class, () -> topic.subscriptions().createSubscription(misplaced));
        var info = assertRefused(Code.INVALID_ARGUMENT, "INVALID_FIELD", invalid);
        assertEquals("policy.filter", info.getMetadataOrThrow("field"));
        assertEquals("policy.filter", violation(invalid).getField());
        assertTrue(violation(invalid).getDescription().contains("at character 14"));

        var consume = ConsumeRequest.newBuilder().setTopic(topic.name()).setConsumerId(RESIZE).build();
        try (var stream = new TestStream(topic.consumers().consume(consume))) {
            assertRefused(Code.FAILED_PRECONDITION, "CONSUMER_IS_SHARED", stream.end());
        }
        var receive = ReceiveRequest.newBuilder().setTopic(topic.name()).setSubscriptionId(BILLING).build();
        assertRefused(Code.FAILED_PRECONDITION, "NOT_A_SUBSCRIPTION", assertThrows(
                StatusException.class, () -> topic.subscriptions().receive(receive)));
        var open = OpenSubscription.newBuilder().setTopic(topic.name()).setSubscriptionId(BILLING).build();
        try (var worker = TestWorker.open(topic.subscriptions().subscribe(), open)) {
            assertRefused(Code.FAILED_PRECONDITION, "NOT_A_SUBSCRIPTION", assertThrows(
                    StatusException.class, worker::next));
        }
    }
}
