package io.trunkline.client;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import io.trunkline.v1.CommitRequest;
import io.trunkline.v1.CommitResponse;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.CreateTopicRequest;
import io.trunkline.v1.Topic;
import io.trunkline.v1.TopicServiceGrpc;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * A connection to a broker. It connects again by itself after a break, and is safe to share between threads.
 *
 * <p>Producers and consumers have connections of their own. Close them before their client, which commits for its
 * consumers.
 */
public final class TrunklineClient implements AutoCloseable {
    static final int CALL_SECONDS = 30;

    private static final int COMMIT_SECONDS = 10;

    private final Supplier<ManagedChannel> connector;
    /** For the caller's stubs. It connects when one of them calls. */
    private final ManagedChannel channel;
    /** For the package's own calls, whose window the caller's streams must not fill. */
    private final ManagedChannel calls;
    /** Starts the commits of all consumers, and waits for none of them. */
    private final ScheduledThreadPoolExecutor scheduler = new ScheduledThreadPoolExecutor(1, task -> {
        var thread = new Thread(task, "trunkline-commits");
        thread.setDaemon(true);
        return thread;
    }, new ThreadPoolExecutor.DiscardPolicy());

    TrunklineClient(Supplier<ManagedChannel> connector) {
        this.connector = connector;
        channel = connector.get();
        calls = connector.get();
        scheduler.setRemoveOnCancelPolicy(true);
    }

    /** A client of the broker at {@code HOST:PORT}, {@code http://HOST:PORT} or {@code https://HOST:PORT}. */
    public static TrunklineClient connect(String target) {
        return builder(target).build();
    }

    /** A client with a token or an authority of its own. */
    public static ClientBuilder builder(String target) {
        return new ClientBuilder(target);
    }

    /** Creates a topic unless it exists. */
    public Topic ensureTopic(String name) {
        return ensureTopic(CreateTopicRequest.newBuilder().setTopic(name).build());
    }

    /** Creates a topic unless it exists. One that differs from the request is refused, {@code TOPIC_DIFFERS}. */
    public Topic ensureTopic(CreateTopicRequest topic) {
        var request = topic.toBuilder().setIfMissing(true).build();
        return call(channel -> TopicServiceGrpc.newBlockingStub(channel)
                        .withDeadlineAfter(CALL_SECONDS, SECONDS)
                        .createTopic(request))
                .getTopic();
    }

    /** A producer of a topic, which {@link ProducerBuilder#open} registers if it is missing. */
    public ProducerBuilder producer(String topic, String producerId) {
        return new ProducerBuilder(this, topic, producerId);
    }

    /** A consumer of a topic, which {@link ConsumerBuilder#open} registers if it is missing. */
    public ConsumerBuilder consumer(String topic, String consumerId) {
        return new ConsumerBuilder(this, topic, consumerId);
    }

    /** The connection for stubs. It sends the token with each call. */
    public Channel channel() {
        return channel;
    }

    /** Closes the connection. */
    @Override
    public void close() {
        scheduler.shutdownNow();
        calls.shutdown();
        channel.shutdown();
    }

    <T> T call(Function<Channel, T> call) {
        reconnect();
        try {
            return call.apply(calls);
        } catch (StatusRuntimeException refused) {
            throw new TrunklineException(refused);
        }
    }

    /** Runs a task later, on a thread that must not wait. */
    Future<?> schedule(Runnable task, long millis) {
        return scheduler.schedule(task, millis, MILLISECONDS);
    }

    void commit(CommitRequest request, StreamObserver<CommitResponse> answer) {
        reconnect();
        ConsumerServiceGrpc.newStub(calls)
                .withWaitForReady()
                .withDeadlineAfter(COMMIT_SECONDS, SECONDS)
                .commit(request, answer);
    }

    /** Tries to connect at once after a failure; gRPC would wait for up to two minutes. */
    private void reconnect() {
        calls.resetConnectBackoff();
        channel.resetConnectBackoff();
    }

    /** Another connection: streams that share one also share its window, so that a slow one stops the others. */
    ManagedChannel newChannel() {
        return connector.get();
    }
}
