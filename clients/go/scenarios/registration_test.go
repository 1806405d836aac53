package scenarios

import (
	"os"
	"testing"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func TestRegister(t *testing.T) {
	t.Parallel()
	topic := emptyTopic(t, dial(t, os.Getenv("TRUNKLINE_TARGET")))
	ctx := deadline(t)

	producer, err := topic.producers.RegisterProducer(ctx, &pb.RegisterProducerRequest{Topic: topic.name, ProducerId: shop})
	succeeds(t, err)
	equal(t, "producer", producer.GetProducer().GetProducerId(), shop)
	consumer, err := topic.consumers.RegisterConsumer(ctx, &pb.RegisterConsumerRequest{Topic: topic.name, ConsumerId: billing})
	succeeds(t, err)
	equal(t, "position", consumer.GetConsumer().GetPosition(), 0)

	producers, err := topic.producers.ListProducers(ctx, &pb.ListProducersRequest{Topic: topic.name})
	succeeds(t, err)
	equal(t, "number of producers", len(producers.GetProducers()), 1)
	equal(t, "listed producer", producers.GetProducers()[0].GetProducerId(), shop)
	consumers, err := topic.consumers.ListConsumers(ctx, &pb.ListConsumersRequest{Topic: topic.name})
	succeeds(t, err)
	equal(t, "number of consumers", len(consumers.GetConsumers()), 1)
	equal(t, "listed consumer", consumers.GetConsumers()[0].GetConsumerId(), billing)

	_, err = topic.producers.RegisterProducer(ctx, &pb.RegisterProducerRequest{Topic: topic.name, ProducerId: shop})
	refused(t, err, codes.AlreadyExists, "PRODUCER_EXISTS")
	sameTopic, err := topic.topics.CreateTopic(ctx, &pb.CreateTopicRequest{Topic: topic.name, IfMissing: true})
	succeeds(t, err)
	equal(t, "the topic existed", sameTopic.GetExisted(), true)
	equal(t, "existing topic", sameTopic.GetTopic().GetName(), topic.name)
	sameProducer, err := topic.producers.RegisterProducer(ctx, &pb.RegisterProducerRequest{Topic: topic.name, ProducerId: shop, IfMissing: true})
	succeeds(t, err)
	equal(t, "the producer existed", sameProducer.GetExisted(), true)
	equal(t, "the producer is as it was", proto.Equal(sameProducer.GetProducer(), producer.GetProducer()), true)
	sameConsumer, err := topic.consumers.RegisterConsumer(ctx, &pb.RegisterConsumerRequest{Topic: topic.name, ConsumerId: billing, IfMissing: true})
	succeeds(t, err)
	equal(t, "the consumer existed", sameConsumer.GetExisted(), true)
	equal(t, "the consumer is as it was", proto.Equal(sameConsumer.GetConsumer(), consumer.GetConsumer()), true)
	_, err = topic.topics.GetTopic(ctx, &pb.GetTopicRequest{Topic: topic.name + "-missing"})
	refused(t, err, codes.NotFound, "TOPIC_NOT_FOUND")
	_, err = topic.producers.RegisterProducer(ctx, &pb.RegisterProducerRequest{Topic: topic.name + "-missing", ProducerId: shop})
	refused(t, err, codes.NotFound, "TOPIC_NOT_FOUND")

	generated, err := topic.producers.RegisterProducer(ctx, &pb.RegisterProducerRequest{Topic: topic.name})
	succeeds(t, err)
	if generated.GetProducer().GetProducerId() == "" {
		t.Fatal("the producer was given no id")
	}
}

func TestErrorDetails(t *testing.T) {
	topic := newTopic(t)
	ctx := deadline(t)

	_, err := topic.topics.CreateTopic(ctx, &pb.CreateTopicRequest{Topic: "no/slashes"})
	info := refused(t, err, codes.InvalidArgument, "INVALID_FIELD")
	equal(t, "metadata field", info.GetMetadata()["field"], "topic")
	equal(t, "field", violation(t, err).GetField(), "topic")

	_, err = topic.producers.Publish(ctx, &pb.PublishRequest{Topic: topic.name, ProducerId: "stranger", Messages: numbered(0, 1)})
	info = refused(t, err, codes.PermissionDenied, "PRODUCER_NOT_REGISTERED")
	equal(t, "metadata topic", info.GetMetadata()["topic"], topic.name)
	equal(t, "metadata producer_id", info.GetMetadata()["producer_id"], "stranger")
}
