package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.BILLING;
import static io.trunkline.examples.TestTopic.SHOP;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.junit.jupiter.api.Test;

class ExamplesTest {
    @Test
    void quickstart() throws Exception {
        for (var run = 0; run < 2; run++) {
            try (var quickstart = ExampleProgram.start(System.getenv("TRUNKLINE_TARGET"), Quickstart.class)) {
                var lines = quickstart.output().lines().toList();
                assertEquals(0, quickstart.exitValue());
                var offset = lines.get(0).replace("published at offset ", "");
                assertEquals("consumed " + offset + ": one coffee", lines.get(lines.size() - 1));
            }
        }
    }

    @Test
    void produceAndConsumeThroughARestart() throws Exception {
        var topic = TestTopic.createEmpty();
        try (var broker = new TestBroker();
                var produce = ExampleProgram.start(broker.target(), Produce.class, topic.name(), SHOP);
                var consume = ExampleProgram.start(broker.target(), Consume.class, topic.name(), BILLING)) {
            produce.writeLines(0, 500);
            assertTrue(produce.output().readLine().startsWith("stored "));
            consume.expectLines(0, 500);

            produce.writeLines(500, 500);
            broker.stop();
            produce.writeLines(1_000, 500);
            broker.start();
            consume.expectLines(500, 1_000);
            produce.input().close();
            assertEquals(0, produce.exitValue());
            consume.process().destroy();
            consume.exitValue();
        }
        assertEquals(1_500, topic.billing().getPosition());
    }

    @Test
    void work() throws Exception {
        var topic = TestTopic.create();
        topic.publish(TestTopic.numbered(0, 2));
        var subscription = new TestSubscription(topic);
        try (var work = ExampleProgram.start(
                System.getenv("TRUNKLINE_TARGET"), Work.class, topic.name(), TestSubscription.RESIZE)) {
            assertEquals(
                    List.of("0 message 0 (attempt 1)", "1 message 1 (attempt 1)"),
                    work.output().lines().toList());
            assertEquals(0, work.exitValue());
        }
        assertEquals(2, subscription.describe().getFloor());
    }

    @Test
    void benchmark() throws Exception {
        try (var benchmark = ExampleProgram.start(
                System.getenv("TRUNKLINE_TARGET"), Benchmark.class, "2000", "1")) {
            var lines = benchmark.output().lines().toList();
            assertEquals(0, benchmark.exitValue());
            assertTrue(lines.get(1).matches("publish( +[\\d,]+){2} +\\d+%"), lines::toString);
            assertTrue(lines.get(2).matches("consume( +[\\d,]+){2} +\\d+%"), lines::toString);
        }
    }
}
