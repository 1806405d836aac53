package io.trunkline.examples;

import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.stub.StreamObserver;
import io.trunkline.v1.CommitRequest;
import io.trunkline.v1.CommitResponse;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumeResponse;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.ProducerServiceGrpc;
import io.trunkline.v1.PublishStreamRequest;
import io.trunkline.v1.PublishStreamResponse;
import io.trunkline.v1.RegisterConsumerRequest;
import io.trunkline.v1.RegisterConsumerResponse;
import io.trunkline.v1.RegisterProducerRequest;
import io.trunkline.v1.RegisterProducerResponse;
import java.io.IOException;
import java.util.Optional;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;

/** A server between a test and the broker: it passes calls on, except those that the test has it answer. */
final class Relay implements AutoCloseable {
    /** What commits fail with, if set. */
    final AtomicReference<Throwable> commitFailure = new AtomicReference<>();
    /** The positions that were committed. */
    final LinkedBlockingQueue<Long> committed = new LinkedBlockingQueue<>();
    /** What the next publish streams are answered by; later ones are passed on. */
    final ConcurrentLinkedQueue<Function<StreamObserver<PublishStreamResponse>, StreamObserver<PublishStreamRequest>>>
            publishStreams = new ConcurrentLinkedQueue<>();

    private final ManagedChannel broker = TestTopic.connect(System.getenv("TRUNKLINE_TARGET"));
    private final Server server;

    Relay() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new Consumers())
                .addService(new Producers())
                .build()
                .start();
    }

    String target() {
        return "127.0.0.1:" + server.getPort();
    }

    @Override
    public void close() {
        server.shutdownNow();
        broker.shutdownNow();
    }

    private final class Consumers extends ConsumerServiceGrpc.ConsumerServiceImplBase {
        private final ConsumerServiceGrpc.ConsumerServiceStub passOn = ConsumerServiceGrpc.newStub(broker);

        @Override
        public void registerConsumer(
                RegisterConsumerRequest request, StreamObserver<RegisterConsumerResponse> answer) {
            passOn.registerConsumer(request, answer);
        }

        @Override
        public void consume(ConsumeRequest request, StreamObserver<ConsumeResponse> frames) {
            passOn.consume(request, frames);
        }

        @Override
        public void commit(CommitRequest request, StreamObserver<CommitResponse> answer) {
            var failure = commitFailure.get();
            if (failure != null) {
                answer.onError(failure);
                return;
            }
            passOn.commit(request, new StreamObserver<>() {
                @Override
                public void onNext(CommitResponse stored) {
                    answer.onNext(stored);
                }

                @Override
                public void onError(Throwable failed) {
                    answer.onError(failed);
                }

                @Override
                public void onCompleted() {
                    committed.add(request.getPosition());
                    answer.onCompleted();
                }
            });
        }
    }

    private final class Producers extends ProducerServiceGrpc.ProducerServiceImplBase {
        private final ProducerServiceGrpc.ProducerServiceStub passOn = ProducerServiceGrpc.newStub(broker);

        @Override
        public void registerProducer(
                RegisterProducerRequest request, StreamObserver<RegisterProducerResponse> answer) {
            passOn.registerProducer(request, answer);
        }

        @Override
        public StreamObserver<PublishStreamRequest> publishStream(StreamObserver<PublishStreamResponse> answers) {
            return Optional.ofNullable(publishStreams.poll()).orElse(passOn::publishStream).apply(answers);
        }
    }
}
