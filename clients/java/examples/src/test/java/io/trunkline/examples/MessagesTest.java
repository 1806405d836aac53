package io.trunkline.examples;

import static com.google.protobuf.ByteString.copyFromUtf8;
import static io.trunkline.examples.Refusals.assertRefused;
import static io.trunkline.examples.TestTopic.SHOP;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.Message;
import io.trunkline.v1.NewMessage;
import java.time.Instant;
import java.util.List;
import org.junit.jupiter.api.Test;

class MessagesTest {
    @Test
    void keysHeadersAndUnicode() throws Exception {
        var topic = TestTopic.create();
        var text = NewMessage.newBuilder()
                .setPayload(copyFromUtf8("grüße, 世界, 🚂"))
                .setKey(copyFromUtf8("schlüssel"))
                .putHeaders("sprache", "größtenteils")
                .putHeaders("列車", "🚂")
                .build();
        var noText = NewMessage.newBuilder()
                .setPayload(ByteString.copyFrom(new byte[] {(byte) 0xff, 0x00, (byte) 0xfe}))
                .build();
        var emptyKey = NewMessage.newBuilder()
                .setPayload(copyFromUtf8("its key is empty"))
                .setKey(ByteString.EMPTY)
                .build();
        var nothing = NewMessage.getDefaultInstance();
        topic.publish(List.of(text, noText));
        topic.publish(List.of(emptyKey, nothing));

        try (var stream = topic.consume(ConsumeRequest.newBuilder())) {
            var messages = stream.messages(4);
            assertEquals(
                    List.of(text, noText, emptyKey, nothing),
                    messages.stream().map(MessagesTest::asPublished).toList());
            var last = Instant.EPOCH;
            for (var message : messages) {
                assertEquals(SHOP, message.getProducerId());
                assertTrue(message.hasPublishTime());
                var time = Instant.ofEpochSecond(
                        message.getPublishTime().getSeconds(), message.getPublishTime().getNanos());
                assertFalse(time.isBefore(last));
                last = time;
            }
        }
    }

    @Test
    void oneMebibyteMessage() throws Exception {
        var topic = TestTopic.create();
        var mebibyte = 1_048_576;
        var largest = NewMessage.newBuilder().setPayload(ByteString.copyFrom(new byte[mebibyte])).build();
        var tooLarge = NewMessage.newBuilder().setPayload(ByteString.copyFrom(new byte[mebibyte + 1])).build();
        topic.publish(List.of(largest));
        assertRefused(Code.INVALID_ARGUMENT, "INVALID_FIELD", assertThrows(
                StatusException.class, () -> topic.publish(List.of(tooLarge))));

        try (var stream = topic.consume(ConsumeRequest.newBuilder().setUntilCaughtUp(true))) {
            var payloads = stream.rest().stream()
                    .flatMap(frame -> frame.getBatch().getMessagesList().stream())
                    .map(Message::getPayload)
                    .toList();
            assertTrue(payloads.equals(List.of(largest.getPayload())), "the payload came back changed");
        }
    }

    private static NewMessage asPublished(Message message) {
        var published = NewMessage.newBuilder()
                .setPayload(message.getPayload())
                .putAllHeaders(message.getHeadersMap());
        if (message.hasKey()) published.setKey(message.getKey());
        return published.build();
    }
}
