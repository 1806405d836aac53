package io.trunkline.client;

import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import io.trunkline.v1.ProducerServiceGrpc;
import io.trunkline.v1.PublishStreamRequest;
import io.trunkline.v1.PublishStreamResponse;

/** Sends what is in the outbox, and sends the unanswered requests again after a break. */
final class Delivery implements Runnable {
    private final TrunklineClient client;
    private final Outbox outbox;

    Delivery(TrunklineClient client, Outbox outbox) {
        this.client = client;
        this.outbox = outbox;
    }

    /** Runs until the producer is closed or has failed. */
    @Override
    public void run() {
        try {
            while (outbox.awaitMessages()) deliver();
        } catch (StatusRuntimeException refused) {
            outbox.fail(refused);
        } catch (Throwable fault) {
            // Nobody may wait for ever for a thread that has ended.
            outbox.failBy(fault);
        }
    }

    private void deliver() throws InterruptedException {
        var channel = client.newChannel();
        try {
            deliver(channel);
        } catch (StatusRuntimeException broken) {
            outbox.awaitNextTry(broken);
        } finally {
            channel.shutdownNow();
        }
    }

    private void deliver(ManagedChannel channel) throws InterruptedException {
        var answers = new ClientResponseObserver<PublishStreamRequest, PublishStreamResponse>() {
            @Override
            public void beforeStart(ClientCallStreamObserver<PublishStreamRequest> call) {
                call.setOnReadyHandler(() -> outbox.connect(this));
            }

            @Override
            public void onNext(PublishStreamResponse answer) {
                outbox.settle(this, answer);
            }

            @Override
            public void onError(Throwable broken) {
                outbox.end(this, (StatusRuntimeException) broken);
            }

            @Override
            public void onCompleted() {
                outbox.end(this, Errors.unavailable("the broker closed the stream"));
            }
        };
        var repeated = outbox.begin(answers);
        var requests = ProducerServiceGrpc.newStub(channel).publishStream(answers);
        for (var request : repeated) requests.onNext(request);
        for (var request = outbox.next(); request != null; request = outbox.next()) requests.onNext(request);
    }
}
