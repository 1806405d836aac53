package io.trunkline.examples;

import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.ProcessBuilder.Redirect;
import java.util.ArrayList;
import java.util.List;

/** A broker for a single test, on the same database as the broker that all tests share. */
final class TestBroker implements AutoCloseable {
    private static final String READY = "listening on ";

    private Process process;
    private final List<String> options;
    private String target = "127.0.0.1:0";

    TestBroker(String... options) {
        this.options = List.of(options);
        start();
    }

    String target() {
        return target;
    }

    /** Starts the broker: the first time on a free port, then on the same one. */
    void start() {
        try {
            var command = new ArrayList<>(List.of(
                    System.getenv("TRUNKLINE_BIN"),
                    "serve",
                    "--listen",
                    target,
                    "--database-url",
                    System.getenv("TRUNKLINE_DATABASE_URL"),
                    "--log",
                    "warn"));
            command.addAll(options);
            process = new ProcessBuilder(command).redirectError(Redirect.INHERIT).start();
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
        awaitEnd();
        assertEquals(0, process.exitValue());
    }

    /** Ends the broker with SIGKILL, so that it can do nothing more. */
    void kill() {
        process.destroyForcibly();
        awaitEnd();
    }

    /** Stops the broker with SIGSTOP: its connections stay open, and nothing is answered. */
    void pause() {
        signal("STOP");
    }

    /** Lets a paused broker go on. */
    void proceed() {
        signal("CONT");
    }

    private void signal(String name) {
        try {
            var kill = new ProcessBuilder("kill", "-" + name, String.valueOf(process.pid())).start();
            assertTrue(kill.waitFor(20, SECONDS), "kill did not end");
            assertEquals(0, kill.exitValue());
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        } catch (InterruptedException interrupted) {
            throw interruptedError(interrupted);
        }
    }

    private void awaitEnd() {
        try {
            assertTrue(process.waitFor(20, SECONDS), "the broker did not stop");
        } catch (InterruptedException interrupted) {
            throw interruptedError(interrupted);
        }
    }

    private static AssertionError interruptedError(InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        return new AssertionError("interrupted while waiting for the broker", interrupted);
    }

    @Override
    public void close() {
        process.destroyForcibly();
    }
}
