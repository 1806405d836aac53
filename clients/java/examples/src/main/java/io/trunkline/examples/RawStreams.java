package io.trunkline.examples;

import io.grpc.Channel;
import io.grpc.stub.StreamObserver;
import io.trunkline.v1.CommitMode;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumeResponse;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.ProducerServiceGrpc;
import io.trunkline.v1.PublishStreamRequest;
import io.trunkline.v1.PublishStreamResponse;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** What the benchmark compares the package with: the least that a program does with the stubs. */
final class RawStreams {
    private static final int BATCH = 4_000;
    private static final int MAX_IN_FLIGHT = 8;

    private final Channel channel;

    RawStreams(Channel channel) {
        this.channel = channel;
    }

    /** Publishes through one stream, and returns when all is answered. */
    void publish(String topic, String producerId, int count, Supplier<NewMessage> message)
            throws InterruptedException {
        var room = new Semaphore(MAX_IN_FLIGHT);
        var answers = new Observer<PublishStreamResponse>(answer -> {
            if (!answer.hasReceipt()) throw new IllegalStateException(answer.getRefusal().getMessage());
            room.release();
        });
        var requests = ProducerServiceGrpc.newStub(channel).publishStream(answers);
        for (var sent = 0; sent < count; sent += BATCH) {
            var request = PublishStreamRequest.newBuilder()
                    .setTopic(topic)
                    .setProducerId(producerId)
                    .setSequence(sent);
            for (var i = sent; i < Math.min(sent + BATCH, count); i++) request.addMessages(message.get());
            room.acquire();
            requests.onNext(request.build());
        }
        requests.onCompleted();
        answers.ended.join();
    }

    /** Consumes until nothing is left, without commits; returns how many messages came. */
    long consume(String topic, String consumerId) {
        var request = ConsumeRequest.newBuilder()
                .setTopic(topic)
                .setConsumerId(consumerId)
                .setCommitMode(CommitMode.COMMIT_MODE_MANUAL)
                .setUntilCaughtUp(true)
                .build();
        var count = new AtomicLong();
        var frames = new Observer<ConsumeResponse>(
                frame -> frame.getBatch().getMessagesList().forEach(message -> {
                    if (message.getPayload().size() > 0) count.incrementAndGet();
                }));
        ConsumerServiceGrpc.newStub(channel).consume(request, frames);
        frames.ended.join();
        return count.get();
    }

    private record Observer<T>(Consumer<T> action, CompletableFuture<Void> ended) implements StreamObserver<T> {
        Observer(Consumer<T> action) {
            this(action, new CompletableFuture<>());
        }

        @Override
        public void onNext(T value) {
            action.accept(value);
        }

        @Override
        public void onError(Throwable broken) {
            ended.completeExceptionally(broken);
        }

        @Override
        public void onCompleted() {
            ended.complete(null);
        }
    }
}
