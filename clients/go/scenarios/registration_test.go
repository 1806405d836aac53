package scenarios

import (
	"os"
	"testing"

	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

func TestRegister(t *testing.T) {
	t.Parallel()
	topic := emptyTopic(t, dial(t, os.Getenv("TRUNKLINE_TARGET")))
	ctx := deadline(t)

	producer, err := topic.producers.RegisterProducer(ctx, &trunkline.RegisterProducerRequest{Topic: topic.name, ProducerId: shop})
	succeeds(t, err)
	equal(t, "producer", producer.GetProducer().GetProducerId(), shop)
	consumer, err := topic.consumers.RegisterConsumer(ctx, &trunkline.RegisterConsumerRequest{Topic: topic.name, ConsumerId: billing})
	succeeds(t, err)
	equal(t, "position", consumer.GetConsumer().GetPosition(), 0)

	producers, err := topic.producers.ListProducers(ctx, &trunkline.ListProducersRequest{Topic: topic.name})
	succeeds(t, err)
	equal(t, "number of producers", len(producers.GetProducers()), 1)
	equal(t, "listed producer", producers.GetProducers()[0].GetProducerId(), shop)
	consumers, err := topic.consumers.ListConsumers(ctx, &trunkline.ListConsumersRequest{Topic: topic.name})
	succeeds(t, err)
	equal(t, "number of consumers", len(consumers.GetConsumers()), 1)
	equal(t, "listed consumer", consumers.GetConsumers()[0].GetConsumerId(), billing)

	_, err = topic.producers.RegisterProducer(ctx, &trunkline.RegisterProducerRequest{Topic: topic.name, ProducerId: shop})
	refused(t, err, codes.AlreadyExists, "PRODUCER_EXISTS")
	_, err = topic.topics.GetTopic(ctx, &trunkline.GetTopicRequest{Topic: topic.name + "-missing"})
	refused(t, err, codes.NotFound, "TOPIC_NOT_FOUND")
	_, err = topic.producers.RegisterProducer(ctx, &trunkline.RegisterProducerRequest{Topic: topic.name + "-missing", ProducerId: shop})
	refused(t, err, codes.NotFound, "TOPIC_NOT_FOUND")

	generated, err := topic.producers.RegisterProducer(ctx, &trunkline.RegisterProducerRequest{Topic: topic.name})
	succeeds(t, err)
	if generated.GetProducer().GetProducerId() == "" {
		t.Fatal("the producer was given no id")
	}
}

func TestErrorDetails(t *testing.T) {
	topic := newTopic(t)
	ctx := deadline(t)

	_, err := topic.topics.CreateTopic(ctx, &trunkline.CreateTopicRequest{Topic: "no/slashes"})
	info := refused(t, err, codes.InvalidArgument, "INVALID_FIELD")
	equal(t, "metadata field", info.GetMetadata()["field"], "topic")
	equal(t, "field", violatedField(t, err), "topic")

	_, err = topic.producers.Publish(ctx, &trunkline.PublishRequest{Topic: topic.name, ProducerId: "stranger", Messages: numbered(0, 1)})
	info = refused(t, err, codes.PermissionDenied, "PRODUCER_NOT_REGISTERED")
	equal(t, "metadata topic", info.GetMetadata()["topic"], topic.name)
	equal(t, "metadata producer_id", info.GetMetadata()["producer_id"], "stranger")
}
