package io.trunkline.examples;

import static io.trunkline.examples.Refusals.assertRefused;
import static io.trunkline.examples.TestTopic.numbered;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status.Code;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.OnBusy;
import org.junit.jupiter.api.Test;

class LeaseTest {
    @Test
    void standbyAndTakeOver() throws Exception {
        var topic = TestTopic.create();
        var request = ConsumeRequest.newBuilder();
        try (var holder = topic.consume(request.setClientName("ann"))) {
            holder.attached();
            try (var standby = topic.consume(request.setClientName("bob"))) {
                assertEquals("ann", standby.next().getStandby().getHolder());

                try (var impatient = topic.consume(request.setOnBusy(OnBusy.ON_BUSY_FAIL))) {
                    assertRefused(Code.FAILED_PRECONDITION, "LEASE_HELD", impatient.end());
                }
                try (var taker = topic.consume(request.setOnBusy(OnBusy.ON_BUSY_TAKE_OVER))) {
                    taker.attached();
                    assertRefused(Code.ABORTED, "LEASE_TAKEN_OVER", holder.end());
                }
                standby.attached();
            }
        }
    }

    @Test
    void cancelFreesTheLease() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 1_000));
        long end;
        try (var cancelled = topic.consume(ConsumeRequest.newBuilder().setMaxBatchMessages(10))) {
            end = cancelled.messages(10).get(9).getOffset() + 1;
        }
        try (var next = topic.consume(ConsumeRequest.newBuilder().setOnBusy(OnBusy.ON_BUSY_WAIT))) {
            var position = next.attached().getPosition();
            // A fast broker has delivered all the others by then.
            topic.publish(numbered(1_000, 1));
            assertTrue(position >= end, "the position is " + position + ", but every message before " + end + " was delivered");
            assertEquals(position, next.messages(1).get(0).getOffset());
        }
    }
}
