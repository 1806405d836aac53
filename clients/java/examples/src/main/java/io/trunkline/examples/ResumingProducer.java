package io.trunkline.examples;

import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Channel;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.BlockingClientCall;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.Producer;
import io.trunkline.v1.ProducerServiceGrpc;
import io.trunkline.v1.ProducerServiceGrpc.ProducerServiceBlockingV2Stub;
import io.trunkline.v1.PublishReceipt;
import io.trunkline.v1.PublishRefusal;
import io.trunkline.v1.PublishStreamRequest;
import io.trunkline.v1.PublishStreamResponse;
import io.trunkline.v1.RegisterProducerRequest;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;

/** Publishes batches through one stream, and stores each batch once, however often the stream breaks. */
final class ResumingProducer {
    private static final System.Logger LOG = System.getLogger(ResumingProducer.class.getName());

    /**
     * The maximum number of requests in flight. The broker remembers at least the last eight that it
     * accepted from a producer, and recognises them when they are repeated.
     */
    private static final int MAX_IN_FLIGHT = 8;

    private static final long ANSWER_SECONDS = 30;

    private final ProducerServiceBlockingV2Stub producers;
    private final Producer registered;
    private final Queue<PublishStreamRequest> unanswered = new ArrayDeque<>();
    private long nextSequence;

    private ResumingProducer(ProducerServiceBlockingV2Stub producers, Producer registered) {
        this.producers = producers;
        this.registered = registered;
        nextSequence = registered.hasLastSequence() ? registered.getLastSequence() + 1 : 0;
    }

    /**
     * Registers a producer, or continues the sequence of one that is already registered. It fences,
     * because an older instance that still runs would give the same sequences to other messages.
     */
    static ResumingProducer register(Channel channel, String topic, String producerId) throws StatusException {
        var producers = ProducerServiceGrpc.newBlockingV2Stub(channel);
        var answer = producers.withDeadlineAfter(10, SECONDS).registerProducer(RegisterProducerRequest.newBuilder()
                .setTopic(topic)
                .setProducerId(producerId)
                .setFence(true)
                .build());
        return new ResumingProducer(producers, answer.getProducer());
    }

    /** Publishes all lines, and returns when they are on disk. */
    void publish(Lines lines, Consumer<PublishReceipt> stored)
            throws IOException, StatusException, InterruptedException {
        var backoff = new Backoff();
        while (true) {
            try {
                publishThroughOneStream(lines, receipt -> {
                    backoff.reset();
                    stored.accept(receipt);
                });
                return;
            } catch (StatusException broken) {
                if (broken.getStatus().getCode() != Status.Code.UNAVAILABLE) throw broken;
                LOG.log(Level.WARNING, "The stream broke, and is opened again: {0}", broken.getMessage());
                Thread.sleep(backoff.pauseAfter(broken).toMillis());
            }
        }
    }

    private void publishThroughOneStream(Lines lines, Consumer<PublishReceipt> stored)
            throws IOException, StatusException, InterruptedException {
        var stream = producers.publishStream();
        try {
            for (var request : unanswered) send(stream, request);
            while (true) {
                var batch = nextBatch(lines);
                if (!batch.isEmpty()) {
                    var request = number(batch);
                    unanswered.add(request);
                    send(stream, request);
                } else if (!unanswered.isEmpty()) {
                    var receipt = receive(stream);
                    unanswered.remove();
                    stored.accept(receipt);
                } else {
                    return;
                }
            }
        } finally {
            stream.cancel("every request is answered, or the stream is broken", null);
        }
    }

    /** Waits for lines only if every request is answered; otherwise returns those that are ready, or none. */
    private List<NewMessage> nextBatch(Lines lines) throws IOException {
        var mayRead = unanswered.isEmpty() || unanswered.size() < MAX_IN_FLIGHT && lines.ready();
        return mayRead ? lines.nextBatch() : List.of();
    }

    private PublishStreamRequest number(List<NewMessage> messages) {
        var request = PublishStreamRequest.newBuilder()
                .setTopic(registered.getTopic())
                .setProducerId(registered.getProducerId())
                .setProducerEpoch(registered.getEpoch())
                .setSequence(nextSequence)
                .addAllMessages(messages)
                .build();
        nextSequence += messages.size();
        return request;
    }

    private static void send(BlockingClientCall<PublishStreamRequest, ?> stream, PublishStreamRequest request)
            throws StatusException, InterruptedException {
        try {
            if (!stream.write(request, ANSWER_SECONDS, SECONDS)) throw unavailable("the broker ended the stream");
        } catch (TimeoutException stuck) {
            throw unavailable("the broker accepts no more requests");
        }
    }

    private static PublishReceipt receive(BlockingClientCall<?, PublishStreamResponse> stream)
            throws StatusException, InterruptedException {
        try {
            var response = stream.read(ANSWER_SECONDS, SECONDS);
            if (response == null) throw unavailable("the broker ended the stream");
            if (response.hasRefusal()) throw statusOf(response.getRefusal());
            return response.getReceipt();
        } catch (TimeoutException silent) {
            throw unavailable("the broker did not answer a request");
        }
    }

    /** The error that the unary call would have ended with. */
    private static StatusException statusOf(PublishRefusal refusal) {
        var reason = ErrorInfo.newBuilder()
                .setDomain("trunkline")
                .setReason(refusal.getReason())
                .putAllMetadata(refusal.getMetadataMap());
        var status = com.google.rpc.Status.newBuilder()
                .setCode(refusal.getCode())
                .setMessage(refusal.getMessage())
                .addDetails(Any.pack(reason.build()));
        if (refusal.hasRetryDelay()) {
            status.addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(refusal.getRetryDelay()).build()));
        }
        return StatusProto.toStatusException(status.build());
    }

    private static StatusException unavailable(String why) {
        return Status.UNAVAILABLE.withDescription(why).asException();
    }
}
