package scenarios

import (
	"io"
	"os"
	"testing"

	"github.com/trunkline/trunkline/clients/go/examples/token"
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

func TestCallWithAToken(t *testing.T) {
	t.Parallel()
	target := os.Getenv("TRUNKLINE_SECURE_TARGET")
	elsewhere := emptyTopic(t, dial(t, os.Getenv("TRUNKLINE_TARGET")))
	ctx := deadline(t)

	nobody := trunkline.NewTopicServiceClient(dial(t, target))
	_, err := nobody.GetTopic(ctx, &trunkline.GetTopicRequest{Topic: elsewhere.name})
	refused(t, err, codes.Unauthenticated, "TOKEN_MISSING")

	conn, err := token.DialLocal(target, os.Getenv("TRUNKLINE_SECURE_TOKEN"))
	succeeds(t, err)
	t.Cleanup(func() { conn.Close() })
	topics := trunkline.NewTopicServiceClient(conn)
	producers := trunkline.NewProducerServiceClient(conn)
	consumers := trunkline.NewConsumerServiceClient(conn)
	name := "scenarios." + elsewhere.name
	_, err = topics.CreateTopic(ctx, &trunkline.CreateTopicRequest{Topic: name})
	succeeds(t, err)
	_, err = producers.RegisterProducer(ctx, &trunkline.RegisterProducerRequest{Topic: name, ProducerId: shop})
	succeeds(t, err)
	_, err = consumers.RegisterConsumer(ctx, &trunkline.RegisterConsumerRequest{Topic: name, ConsumerId: billing})
	succeeds(t, err)
	sent := numbered(0, 1)
	_, err = producers.Publish(ctx, &trunkline.PublishRequest{Topic: name, ProducerId: shop, Messages: sent})
	succeeds(t, err)
	frames, err := consumers.Consume(ctx, &trunkline.ConsumeRequest{
		Topic: name, ConsumerId: billing, Stop: &trunkline.ConsumeRequest_UntilCaughtUp{UntilCaughtUp: true},
	})
	succeeds(t, err)
	var got []*trunkline.Message
	for frame, err := frames.Recv(); err != io.EOF; frame, err = frames.Recv() {
		succeeds(t, err)
		got = append(got, frame.GetBatch().GetMessages()...)
	}
	equal(t, "number of messages", len(got), 1)
	equal(t, "payload", string(got[0].GetPayload()), string(sent[0].GetPayload()))

	_, err = topics.GetTopic(ctx, &trunkline.GetTopicRequest{Topic: elsewhere.name})
	refused(t, err, codes.NotFound, "TOPIC_NOT_FOUND")
}
