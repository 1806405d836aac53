package io.trunkline.examples;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import com.google.protobuf.ByteString;
import io.trunkline.v1.NewMessage;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;

/** Lines as batches of messages: a file goes in large batches, and typed input line by line. */
final class Lines {
    private static final int MAX_LINES = 1_000;
    private static final int MAX_BYTES = 1 << 20;

    private final BufferedReader reader;

    Lines(InputStream input) {
        // ISO 8859-1 keeps every byte as it is, even if a line is not text.
        reader = new BufferedReader(new InputStreamReader(input, ISO_8859_1));
    }

    /** Whether something can be read without waiting. */
    boolean ready() throws IOException {
        return reader.ready();
    }

    /** Waits for a line, and adds the lines that can be read at once; returns none at the end. */
    List<NewMessage> nextBatch() throws IOException {
        var batch = new ArrayList<NewMessage>();
        var bytes = 0;
        do {
            var line = reader.readLine();
            if (line == null) break;
            batch.add(NewMessage.newBuilder().setPayload(ByteString.copyFrom(line, ISO_8859_1)).build());
            bytes += line.length();
        } while (batch.size() < MAX_LINES && bytes < MAX_BYTES && ready());
        return batch;
    }
}
