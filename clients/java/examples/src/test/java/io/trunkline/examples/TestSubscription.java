package io.trunkline.examples;

import static org.junit.jupiter.api.Assertions.assertFalse;

import com.google.protobuf.Duration;
import io.grpc.StatusException;
import io.trunkline.v1.Acknowledge;
import io.trunkline.v1.CreateSubscriptionRequest;
import io.trunkline.v1.Delivery;
import io.trunkline.v1.DeliveryPolicy;
import io.trunkline.v1.GetSubscriptionRequest;
import io.trunkline.v1.OpenSubscription;
import io.trunkline.v1.ReceiveRequest;
import io.trunkline.v1.SettleRequest;
import io.trunkline.v1.Settlement;
import io.trunkline.v1.Subscription;
import io.trunkline.v1.SubscriptionServiceGrpc.SubscriptionServiceBlockingV2Stub;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/** The subscription resize of a test's topic, which delivers messages again at once. */
record TestSubscription(TestTopic topic) {
    static final String RESIZE = "resize";

    /** A message that a worker has. */
    record Job(long delivery, long offset, int attempts, String payload) {
        /** Acknowledges it by its offset. */
        Settlement acknowledge() {
            return settlement().setAcknowledge(Acknowledge.getDefaultInstance()).build();
        }

        /** Settles it by its offset. */
        Settlement.Builder settlement() {
            return Settlement.newBuilder().setDelivery(delivery).addOffsets(offset);
        }
    }

    static TestSubscription create(DeliveryPolicy.Builder policy) throws StatusException {
        var subscription = new TestSubscription(TestTopic.create());
        subscription.calls().createSubscription(CreateSubscriptionRequest.newBuilder()
                .setTopic(subscription.topicName())
                .setSubscriptionId(RESIZE)
                .setPolicy(policy.setMinBackoff(seconds(0)))
                .build());
        return subscription;
    }

    static TestSubscription create() throws StatusException {
        return create(DeliveryPolicy.newBuilder());
    }

    String topicName() {
        return topic.name();
    }

    SubscriptionServiceBlockingV2Stub calls() {
        return topic.subscriptions();
    }

    Subscription describe() throws StatusException {
        return calls().getSubscription(GetSubscriptionRequest.newBuilder()
                .setTopic(topicName())
                .setSubscriptionId(RESIZE)
                .build())
                .getSubscription();
    }

    /** Opens a stream. */
    TestWorker work(OpenSubscription.Builder open) throws StatusException, InterruptedException {
        return TestWorker.open(calls().subscribe(), open.setTopic(topicName()).setSubscriptionId(RESIZE).build());
    }

    TestWorker work() throws StatusException, InterruptedException {
        return work(OpenSubscription.newBuilder());
    }

    /** Takes so many messages, in as many calls as that needs. */
    List<Job> receive(int count) throws StatusException {
        var jobs = new ArrayList<Job>();
        while (jobs.size() < count) {
            var received = calls().receive(ReceiveRequest.newBuilder()
                    .setTopic(topicName())
                    .setSubscriptionId(RESIZE)
                    .setMaxMessages(count - jobs.size())
                    .setWait(seconds(10))
                    .build());
            assertFalse(received.getDeliveriesList().isEmpty(), () -> "no more messages came after " + jobs);
            jobs.addAll(jobs(received.getDeliveriesList()));
        }
        return jobs;
    }

    /** How many messages each settlement applied to. */
    List<Integer> settle(List<Settlement> settlements) throws StatusException {
        return calls().settle(SettleRequest.newBuilder()
                .setTopic(topicName())
                .setSubscriptionId(RESIZE)
                .addAllSettlements(settlements)
                .build())
                .getAppliedList();
    }

    static List<Job> jobs(List<Delivery> deliveries) {
        return deliveries.stream()
                .flatMap(delivery -> IntStream.range(0, delivery.getAttemptsCount()).mapToObj(i -> {
                    var message = delivery.getBatch().getMessages(i);
                    return new Job(
                            delivery.getDelivery(),
                            message.getOffset(),
                            delivery.getAttempts(i),
                            message.getPayload().toStringUtf8());
                }))
                .toList();
    }

    static List<Long> offsets(List<Job> jobs) {
        return jobs.stream().map(Job::offset).toList();
    }

    static Duration seconds(long seconds) {
        return Duration.newBuilder().setSeconds(seconds).build();
    }
}
