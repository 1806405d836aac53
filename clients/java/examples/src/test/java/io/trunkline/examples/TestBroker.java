package io.trunkline.examples;

import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.ProcessBuilder.Redirect;

/** A broker for a single test, on the same database as the broker that all tests share. */
final class TestBroker implements AutoCloseable {
    private static final String READY = "listening on ";

    private Process process;
    private String target = "127.0.0.1:0";

    TestBroker() {
        start();
    }

    String target() {
        return target;
    }

    /** Starts the broker: the first time on a free port, then on the same one. */
    void start() {
        try {
            process = new ProcessBuilder(
                            System.getenv("TRUNKLINE_BIN"),
                            "serve",
                            "--listen",
                            target,
                            "--database-url",
                            System.getenv("TRUNKLINE_DATABASE_URL"),
                            "--log",
                            "warn")
                    .redirectError(Redirect.INHERIT)
                    .start();
            var ready = process.inputReader().readLine();
            assertTrue(ready != null && ready.startsWith(READY), "the broker did not start: " + ready);
            target = ready.substring(READY.length());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    /** Ends the broker with SIGTERM, as a machine that shuts down does. */
    void stop() {
        process.destroy();
        try {
            assertTrue(process.waitFor(20, SECONDS), "the broker did not stop");
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new AssertionError("interrupted while waiting for the broker to stop", interrupted);
        }
        assertEquals(0, process.exitValue());
    }

    @Override
    public void close() {
        process.destroyForcibly();
    }
}
