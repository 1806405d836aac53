package io.trunkline.client;

import io.trunkline.v1.NewMessage;
import java.util.Map;

/** The broker's limits of a message. One that exceeds them is refused before it would fail its whole request. */
final class MessageLimits {
    private static final int MAX_BYTES = 1 << 20;
    private static final int MAX_HEADERS = 64;
    private static final int MAX_HEADERS_BYTES = 16 << 10;
    private static final int MAX_HEADER_NAME_BYTES = 255;

    /** The size of payload, key and headers in bytes. */
    static int checkedSize(NewMessage message) {
        var size = message.getPayload().size() + message.getKey().size();
        if (message.getHeadersCount() > 0) size += checkedSize(message.getHeadersMap());
        check("message", size, MAX_BYTES, "bytes");
        return size;
    }

    private static int checkedSize(Map<String, String> headers) {
        check("headers", headers.size(), MAX_HEADERS, "entries");
        var size = 0;
        for (var header : headers.entrySet()) {
            var name = header.getKey();
            if (name.isEmpty()) throw Errors.invalid("headers", "have an empty name");
            if (name.indexOf(0) >= 0 || header.getValue().indexOf(0) >= 0) {
                throw Errors.invalid("headers", "have a NUL character in " + name.replace('\0', '?'));
            }
            check("headers", utf8Size(name), MAX_HEADER_NAME_BYTES, "bytes in a name");
            size += utf8Size(name) + utf8Size(header.getValue());
        }
        check("headers", size, MAX_HEADERS_BYTES, "bytes");
        return size;
    }

    private static void check(String field, int actual, int limit, String unit) {
        if (actual > limit) throw Errors.overLimit(field, actual, limit, unit);
    }

    private static int utf8Size(String text) {
        var size = 0;
        for (var i = 0; i < text.length(); i++) {
            var character = text.charAt(i);
            // Each half of a surrogate pair counts for 2 of its 4 bytes.
            size += character < 0x80 ? 1 : character < 0x800 || Character.isSurrogate(character) ? 2 : 3;
        }
        return size;
    }

    private MessageLimits() {}
}
