package io.trunkline.examples;

import io.grpc.StatusException;
import io.trunkline.client.TrunklineClient;
import io.trunkline.v1.Acknowledge;
import io.trunkline.v1.CreateSubscriptionRequest;
import io.trunkline.v1.Message;
import io.trunkline.v1.OpenSubscription;
import io.trunkline.v1.Reject;
import io.trunkline.v1.SettleMessages;
import io.trunkline.v1.Settlement;
import io.trunkline.v1.SubscribeRequest;
import io.trunkline.v1.SubscriptionServiceGrpc;

/**
 * Works on the messages of a subscription, with the stubs, until there are no more: {@code Work TOPIC
 * SUBSCRIPTION}.
 */
public final class Work {
    public static void main(String[] arguments) throws StatusException, InterruptedException {
        if (arguments.length != 2) {
            System.err.println("usage: Work TOPIC SUBSCRIPTION");
            System.exit(2);
        }
        var target = System.getenv().getOrDefault("TRUNKLINE_TARGET", "127.0.0.1:50051");
        try (var client = TrunklineClient.connect(target)) {
            work(client, arguments[0], arguments[1]);
        }
    }

    private static void work(TrunklineClient client, String topic, String subscriptionId)
            throws StatusException, InterruptedException {
        var subscriptions = SubscriptionServiceGrpc.newBlockingV2Stub(client.channel());
        subscriptions.createSubscription(CreateSubscriptionRequest.newBuilder()
                .setTopic(topic)
                .setSubscriptionId(subscriptionId)
                .setIfMissing(true)
                .build());

        var open = OpenSubscription.newBuilder().setTopic(topic).setSubscriptionId(subscriptionId);
        var stream = subscriptions.subscribe();
        stream.write(SubscribeRequest.newBuilder().setOpen(open).build());
        var event = stream.read();
        // Without an end, it waits for new messages for ever.
        for (; !event.hasCaughtUp(); event = stream.read()) {
            for (var delivery : event.getDeliveries().getDeliveriesList()) {
                var settle = SettleMessages.newBuilder();
                for (var i = 0; i < delivery.getAttemptsCount(); i++) {
                    var message = delivery.getBatch().getMessages(i);
                    settle.addSettlements(handle(message, delivery.getAttempts(i))
                            .setDelivery(delivery.getDelivery())
                            .addOffsets(message.getOffset()));
                }
                stream.write(SubscribeRequest.newBuilder().setSettle(settle).build());
            }
        }
        // The stream ends once everything that was settled is stored.
        stream.halfClose();
        while (event != null) event = stream.read();
    }

    /** Says what becomes of a message: {@code setRetry} would have it delivered again. */
    private static Settlement.Builder handle(Message message, int attempt) {
        var payload = message.getPayload();
        if (!payload.isValidUtf8()) {
            return Settlement.newBuilder().setReject(Reject.newBuilder().setReason("the payload is not text"));
        }
        System.out.println(message.getOffset() + " " + payload.toStringUtf8() + " (attempt " + attempt + ")");
        return Settlement.newBuilder().setAcknowledge(Acknowledge.getDefaultInstance());
    }
}
