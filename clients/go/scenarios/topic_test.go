// Package scenarios holds a test of each scenario in clients/SCENARIOS.md, under its name.
package scenarios

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	shop    = "shop"
	billing = "billing"
)

// A topic belongs to one test. newTopic registers the producer shop and the consumer billing on it.
type topic struct {
	t             *testing.T
	name          string
	topics        pb.TopicServiceClient
	producers     pb.ProducerServiceClient
	consumers     pb.ConsumerServiceClient
	subscriptions pb.SubscriptionServiceClient
}

func newTopic(t *testing.T) *topic {
	t.Helper()
	t.Parallel()
	topic := emptyTopic(t, dial(t, os.Getenv("TRUNKLINE_TARGET")))
	ctx := deadline(t)
	_, err := topic.producers.RegisterProducer(ctx, &pb.RegisterProducerRequest{Topic: topic.name, ProducerId: shop})
	succeeds(t, err)
	_, err = topic.consumers.RegisterConsumer(ctx, &pb.RegisterConsumerRequest{Topic: topic.name, ConsumerId: billing})
	succeeds(t, err)
	return topic
}

func emptyTopic(t *testing.T, conn *grpc.ClientConn) *topic {
	t.Helper()
	topic := &topic{
		t:             t,
		name:          newName(t),
		topics:        pb.NewTopicServiceClient(conn),
		producers:     pb.NewProducerServiceClient(conn),
		consumers:     pb.NewConsumerServiceClient(conn),
		subscriptions: pb.NewSubscriptionServiceClient(conn),
	}
	_, err := topic.topics.CreateTopic(deadline(t), &pb.CreateTopicRequest{Topic: topic.name})
	succeeds(t, err)
	return topic
}

// newName returns a topic's name that nobody else uses.
func newName(t *testing.T) string {
	return fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), time.Now().UnixNano())
}

func dial(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	succeeds(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// deadline returns the context of a call, which must end within 20 seconds.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (topic *topic) publish(messages ...*pb.NewMessage) *pb.PublishResponse {
	topic.t.Helper()
	published, err := topic.producers.Publish(deadline(topic.t), &pb.PublishRequest{
		Topic:      topic.name,
		ProducerId: shop,
		Messages:   messages,
	})
	succeeds(topic.t, err)
	return published
}

func (topic *topic) consumer() *pb.Consumer {
	topic.t.Helper()
	answer, err := topic.consumers.GetConsumer(deadline(topic.t), &pb.GetConsumerRequest{Topic: topic.name, ConsumerId: billing})
	succeeds(topic.t, err)
	return answer.GetConsumer()
}

// numbered makes messages whose payloads are numbered from first on.
func numbered(first, count int) []*pb.NewMessage {
	messages := make([]*pb.NewMessage, count)
	for i := range messages {
		messages[i] = &pb.NewMessage{Payload: fmt.Append(nil, "message ", first+i)}
	}
	return messages
}

func succeeds(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// refused checks the code and the reason of an error, and returns its ErrorInfo.
func refused(t *testing.T, err error, code codes.Code, reason string) *errdetails.ErrorInfo {
	t.Helper()
	refusal := status.Convert(err)
	if refusal.Code() != code {
		t.Fatalf("got %v, want %v", err, code)
	}
	for _, detail := range refusal.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			equal(t, "domain", info.GetDomain(), "trunkline")
			equal(t, "reason", info.GetReason(), reason)
			return info
		}
	}
	t.Fatalf("%v has no ErrorInfo", err)
	return nil
}

func violation(t *testing.T, err error) *errdetails.BadRequest_FieldViolation {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if request, ok := detail.(*errdetails.BadRequest); ok {
			return request.GetFieldViolations()[0]
		}
	}
	t.Fatalf("%v has no BadRequest", err)
	return nil
}
