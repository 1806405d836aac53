package scenarios

import (
	"os"
	"testing"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

func TestCallWithAToken(t *testing.T) {
	t.Parallel()
	target := os.Getenv("TRUNKLINE_SECURE_TARGET")
	elsewhere := emptyTopic(t, dial(t, os.Getenv("TRUNKLINE_TARGET")))
	ctx := deadline(t)

	nobody := pb.NewTopicServiceClient(dial(t, target))
	_, err := nobody.GetTopic(ctx, &pb.GetTopicRequest{Topic: elsewhere.name})
	refused(t, err, codes.Unauthenticated, "TOKEN_MISSING")

	client := connect(t, target, trunkline.WithToken(os.Getenv("TRUNKLINE_SECURE_TOKEN")))
	name := "scenarios." + elsewhere.name
	succeeds(t, client.EnsureTopic(ctx, name))
	producer, err := client.NewProducer(ctx, trunkline.ProducerConfig{Topic: name, ID: shop})
	succeeds(t, err)
	sent := numbered(0, 1)[0]
	_, err = producer.Publish(ctx, sent)
	succeeds(t, err)
	succeeds(t, producer.Close(ctx))
	consumer, err := client.NewConsumer(ctx, trunkline.ConsumerConfig{Topic: name, ID: billing, UntilCaughtUp: true})
	succeeds(t, err)
	var got []string
	for message, err := range consumer.Messages(ctx) {
		succeeds(t, err)
		got = append(got, string(message.Payload))
	}
	equal(t, "number of messages", len(got), 1)
	equal(t, "payload", got[0], string(sent.Payload))

	_, err = client.NewConsumer(ctx, trunkline.ConsumerConfig{Topic: elsewhere.name, ID: billing})
	fails(t, err, codes.NotFound, "TOPIC_NOT_FOUND")
}
