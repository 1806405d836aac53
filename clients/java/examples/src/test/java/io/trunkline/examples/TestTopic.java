package io.trunkline.examples;

import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.ByteString;
import io.grpc.Channel;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusException;
import io.trunkline.v1.Consumer;
import io.trunkline.v1.ConsumeRequest;
import io.trunkline.v1.ConsumerServiceGrpc;
import io.trunkline.v1.ConsumerServiceGrpc.ConsumerServiceBlockingV2Stub;
import io.trunkline.v1.CreateTopicRequest;
import io.trunkline.v1.GetConsumerRequest;
import io.trunkline.v1.NewMessage;
import io.trunkline.v1.ProducerServiceGrpc;
import io.trunkline.v1.ProducerServiceGrpc.ProducerServiceBlockingV2Stub;
import io.trunkline.v1.PublishRequest;
import io.trunkline.v1.RegisterConsumerRequest;
import io.trunkline.v1.RegisterProducerRequest;
import io.trunkline.v1.SubscriptionServiceGrpc;
import io.trunkline.v1.SubscriptionServiceGrpc.SubscriptionServiceBlockingV2Stub;
import io.trunkline.v1.TopicServiceGrpc;
import io.trunkline.v1.TopicServiceGrpc.TopicServiceBlockingV2Stub;
import java.util.List;
import java.util.UUID;
import java.util.stream.IntStream;

/** A topic that belongs to one test. Each call has a deadline. */
record TestTopic(Channel channel, String name) {
    static final String SHOP = "shop";
    static final String BILLING = "billing";

    private static final int DEADLINE_SECONDS = 20;
    private static final Channel CHANNEL = connect(System.getenv("TRUNKLINE_TARGET"));

    static ManagedChannel connect(String target) {
        return Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
    }

    /** A topic with the producer shop and the consumer billing. */
    static TestTopic create() throws StatusException {
        var topic = createEmpty();
        topic.producers().registerProducer(RegisterProducerRequest.newBuilder()
                .setTopic(topic.name)
                .setProducerId(SHOP)
                .build());
        topic.consumers().registerConsumer(RegisterConsumerRequest.newBuilder()
                .setTopic(topic.name)
                .setConsumerId(BILLING)
                .build());
        return topic;
    }

    static TestTopic createEmpty() throws StatusException {
        var topic = new TestTopic(CHANNEL, "test-" + UUID.randomUUID());
        topic.topics().createTopic(CreateTopicRequest.newBuilder().setTopic(topic.name).build());
        return topic;
    }

    TopicServiceBlockingV2Stub topics() {
        return TopicServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
    }

    ProducerServiceBlockingV2Stub producers() {
        return ProducerServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
    }

    ConsumerServiceBlockingV2Stub consumers() {
        return ConsumerServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
    }

    SubscriptionServiceBlockingV2Stub subscriptions() {
        return SubscriptionServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
    }

    void publish(List<NewMessage> messages) throws StatusException {
        producers().publish(PublishRequest.newBuilder()
                .setTopic(name)
                .setProducerId(SHOP)
                .addAllMessages(messages)
                .build());
    }

    /** Opens a stream of billing. */
    TestStream consume(ConsumeRequest.Builder request) {
        return consume(consumers(), request);
    }

    TestStream consume(ConsumerServiceBlockingV2Stub consumers, ConsumeRequest.Builder request) {
        return new TestStream(consumers.consume(request.setTopic(name).setConsumerId(BILLING).build()));
    }

    Consumer billing() throws StatusException {
        return consumers()
                .getConsumer(GetConsumerRequest.newBuilder().setTopic(name).setConsumerId(BILLING).build())
                .getConsumer();
    }

    /** Messages whose payloads are numbered from {@code first} on. */
    static List<NewMessage> numbered(long first, int count) {
        return IntStream.range(0, count)
                .mapToObj(i -> NewMessage.newBuilder()
                        .setPayload(ByteString.copyFromUtf8("message " + (first + i)))
                        .build())
                .toList();
    }
}
