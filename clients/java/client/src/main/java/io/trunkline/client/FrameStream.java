package io.trunkline.client;

import static java.util.concurrent.TimeUnit.MILLISECONDS;

import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumeResponse;
import io.trunkline.v1.ConsumerServiceGrpc;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Supplier;

/** An open stream of a consumer. gRPC holds back what is not requested, so that few frames wait here. */
final class FrameStream implements ClientResponseObserver<ConsumeRequest, ConsumeResponse>, AutoCloseable {
    /** Frames of up to 1 MiB each. */
    private static final int READ_AHEAD = 4;
    private static final long OPEN_MILLIS = 30_000;

    private final ManagedChannel channel;
    private final long silenceMillis;
    /** Each gives a frame, or throws the error that ended the stream. */
    private final BlockingQueue<Supplier<ConsumeResponse>> events = new LinkedBlockingQueue<>();
    private ClientCallStreamObserver<ConsumeRequest> call;
    private boolean isOpen;

    /** Opens a stream, whose broker is lost if it is silent for this long. */
    FrameStream(ManagedChannel channel, ConsumeRequest request, long silenceMillis) {
        this.channel = channel;
        this.silenceMillis = silenceMillis;
        ConsumerServiceGrpc.newStub(channel).consume(request, this);
    }

    /** Waits for the next frame. */
    ConsumeResponse next() throws InterruptedException {
        var frame = poll(isOpen ? silenceMillis : OPEN_MILLIS);
        if (frame == null) throw Errors.unavailable("the broker is silent");
        return frame;
    }

    /** Waits for the next frame for at most that long; returns null if none came. */
    ConsumeResponse poll(long millis) throws InterruptedException {
        var event = events.poll(millis, MILLISECONDS);
        if (event == null) return null;
        isOpen = true;
        return event.get();
    }

    /** Makes {@link #next} return an empty frame. */
    void wake() {
        events.add(ConsumeResponse::getDefaultInstance);
    }

    /** Ends the stream, which frees the lease. */
    @Override
    public void close() {
        channel.shutdownNow();
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<ConsumeRequest> call) {
        this.call = call;
        call.disableAutoRequestWithInitial(READ_AHEAD);
    }

    @Override
    public void onNext(ConsumeResponse frame) {
        events.add(() -> {
            call.request(1);
            return frame;
        });
    }

    @Override
    public void onError(Throwable broken) {
        events.add(() -> {
            throw (StatusRuntimeException) broken;
        });
    }

    @Override
    public void onCompleted() {
        onError(Errors.unavailable("the broker closed the stream"));
    }
}
