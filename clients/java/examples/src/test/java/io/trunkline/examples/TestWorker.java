package io.trunkline.examples;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import io.trunkline.examples.TestSubscription.Job;
import io.trunkline.v1.Acknowledge;
import io.trunkline.v1.OpenSubscription;
import io.trunkline.v1.SettleMessages;
import io.trunkline.v1.Settlement;
import io.trunkline.v1.SubscribeRequest;
import io.trunkline.v1.SubscribeResponse;
import java.util.ArrayList;
import java.util.List;

/** A worker's stream, which is cancelled when it is closed. */
record TestWorker(BlockingClientCall<SubscribeRequest, SubscribeResponse> stream) implements AutoCloseable {
    static TestWorker open(BlockingClientCall<SubscribeRequest, SubscribeResponse> stream, OpenSubscription open)
            throws StatusException, InterruptedException {
        stream.write(SubscribeRequest.newBuilder().setOpen(open).build());
        return new TestWorker(stream);
    }

    /** The next event. */
    SubscribeResponse next() throws StatusException, InterruptedException {
        var event = stream.read();
        assertNotNull(event, "the stream has ended");
        return event;
    }

    /** Waits for so many messages, and skips all other events. */
    List<Job> jobs(int count) throws StatusException, InterruptedException {
        var jobs = new ArrayList<Job>();
        while (jobs.size() < count) {
            jobs.addAll(TestSubscription.jobs(next().getDeliveries().getDeliveriesList()));
        }
        assertEquals(count, jobs.size());
        return jobs;
    }

    /** Acknowledges the deliveries that messages came in, without naming offsets. */
    void acknowledgeAll(long requestId, List<Job> jobs) throws StatusException, InterruptedException {
        settle(requestId, jobs.stream()
                .map(Job::delivery)
                .distinct()
                .map(delivery -> Settlement.newBuilder()
                        .setDelivery(delivery)
                        .setAcknowledge(Acknowledge.getDefaultInstance())
                        .build())
                .toList());
    }

    void settle(long requestId, List<Settlement> settlements) throws StatusException, InterruptedException {
        stream.write(SubscribeRequest.newBuilder()
                .setSettle(SettleMessages.newBuilder().setRequestId(requestId).addAllSettlements(settlements))
                .build());
    }

    /**
     * Waits for the next answer, which must be to this request. Returns how many messages its settlements
     * applied to.
     */
    int settled(long requestId) throws StatusException, InterruptedException {
        var event = next();
        while (!event.hasSettled()) event = next();
        assertEquals(requestId, event.getSettled().getRequestId());
        return event.getSettled().getAppliedList().stream().mapToInt(Integer::intValue).sum();
    }

    /** Closes the worker's side, and waits until the stream ends OK. */
    void end() throws StatusException, InterruptedException {
        stream.halfClose();
        SubscribeResponse event;
        do event = stream.read(); while (event != null);
    }

    @Override
    public void close() {
        stream.cancel("the test is done with the stream", null);
    }
}
