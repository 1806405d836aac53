package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.numbered;
import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.Status.Code;
import io.trunkline.client.TrunklineClient;
import io.trunkline.client.TrunklineException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeoutException;
import org.junit.jupiter.api.Test;

class PackageLeaseTest {
    @Test
    void packageLease() throws Exception {
        var topic = TestTopic.create();
        topic.publish(numbered(0, 3));
        try (var client = TrunklineClient.connect(System.getenv("TRUNKLINE_TARGET"))) {
            var first = client.consumer(topic.name(), BILLING).clientName("first").open();
            assertEquals(0, first.next().getOffset());
            assertEquals("first", topic.billing().getHolder());

            var second = client.consumer(topic.name(), BILLING).clientName("second").open();
            var waiting = CompletableFuture.supplyAsync(second::next);
            assertThrows(TimeoutException.class, () -> waiting.get(300, MILLISECONDS));
            assertEquals(1, first.next().getOffset());
            first.close();
            // What the first one finished is not repeated.
            assertEquals(1, waiting.get(20, SECONDS).getOffset());
            assertEquals("second", topic.billing().getHolder());

            try (var third = client.consumer(topic.name(), BILLING).clientName("third").takeOver().open()) {
                assertEquals(1, third.next().getOffset());
                var lost = assertThrows(TrunklineException.class, () -> second.forEachRemaining(message -> {}));
                assertEquals(Code.ABORTED, lost.code());
                assertEquals("LEASE_TAKEN_OVER", lost.reason());
                assertEquals(2, third.next().getOffset());
            }
        }
    }
}
