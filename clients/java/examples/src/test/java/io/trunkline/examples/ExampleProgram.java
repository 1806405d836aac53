package io.trunkline.examples;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.ProcessBuilder.Redirect;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** An example that runs as a separate program. */
record ExampleProgram(Process process, PrintStream input, BufferedReader output) implements AutoCloseable {
    static ExampleProgram start(String target, Class<?> example, String... arguments) throws IOException {
        return start(Map.of("TRUNKLINE_TARGET", target), example, arguments);
    }

    static ExampleProgram start(Map<String, String> environment, Class<?> example, String... arguments)
            throws IOException {
        var java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        var command = new ArrayList<>(List.of(java, "-cp", System.getProperty("java.class.path"), example.getName()));
        command.addAll(List.of(arguments));
        var builder = new ProcessBuilder(command).redirectError(Redirect.INHERIT);
        builder.environment().putAll(environment);
        var process = builder.start();
        return new ExampleProgram(
                process, new PrintStream(process.getOutputStream(), true, UTF_8), process.inputReader(UTF_8));
    }

    void writeLines(int first, int count) {
        for (var i = first; i < first + count; i++) input.println("line " + i);
    }

    void expectLines(int first, int count) throws IOException {
        for (var i = first; i < first + count; i++) assertEquals(i + " line " + i, output.readLine());
    }

    int exitValue() throws InterruptedException {
        assertTrue(process.waitFor(20, SECONDS), "the example did not end");
        return process.exitValue();
    }

    @Override
    public void close() {
        process.destroyForcibly();
    }
}
