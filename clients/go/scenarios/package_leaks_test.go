package scenarios

import (
	"context"
	"io"
	"os"
	"testing"

	trunkline "github.com/trunkline/trunkline/clients/go"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
)

// Runs alone: tests that run in parallel are paused meanwhile.
func TestNoGoroutineIsLeftBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	client, err := trunkline.Dial(os.Getenv("TRUNKLINE_TARGET"))
	succeeds(t, err)
	ctx := deadline(t)
	topic := newName(t)
	succeeds(t, client.EnsureTopic(ctx, topic))
	reader := func(config trunkline.ConsumerConfig) *trunkline.Consumer {
		t.Helper()
		config.Topic, config.ID = topic, billing
		consumer, err := client.NewConsumer(ctx, config)
		succeeds(t, err)
		return consumer
	}

	producer, err := client.NewProducer(ctx, trunkline.ProducerConfig{Topic: topic, ID: shop})
	succeeds(t, err)
	publishes(t, producer, numbered(0, 1000)...)
	succeeds(t, producer.Close(ctx))

	left := reader(trunkline.ConsumerConfig{})
	for _, err := range left.Messages(ctx) {
		succeeds(t, err)
		break
	}
	succeeds(t, left.Close(ctx))

	// Not closed, since they have ended.
	robbed := reader(trunkline.ConsumerConfig{})
	takes(t, robbed, 0, 1)
	caughtUp := reader(trunkline.ConsumerConfig{TakeOver: true, UntilCaughtUp: true})
	for err == nil {
		_, err = robbed.Next(ctx)
	}
	fails(t, err, codes.Aborted, "LEASE_TAKEN_OVER")
	for err = nil; err == nil; {
		_, err = caughtUp.Next(ctx)
	}
	equal(t, "end", err, io.EOF)

	succeeds(t, client.Close())
	goleak.VerifyNone(t, before)
}

// Runs alone, too.
func TestNoGoroutineIsLeftBehindByABrokerThatHangs(t *testing.T) {
	broker := startBroker(t, "127.0.0.1:0")
	before := goleak.IgnoreCurrent()
	client, err := trunkline.Dial(broker.target)
	succeeds(t, err)
	ctx := deadline(t)
	topic := newName(t)
	succeeds(t, client.EnsureTopic(ctx, topic))
	producer, err := client.NewProducer(ctx, trunkline.ProducerConfig{Topic: topic, ID: shop})
	succeeds(t, err)
	publishes(t, producer, numbered(0, 5)...)
	consumer, err := client.NewConsumer(ctx, trunkline.ConsumerConfig{Topic: topic, ID: billing})
	succeeds(t, err)
	takes(t, consumer, 0, 5)

	broker.freeze()
	for range 100 { // More than the connection's window has room for.
		_, err = producer.Publish(ctx, &trunkline.NewMessage{Payload: make([]byte, 100_000)})
		succeeds(t, err)
	}
	waiting, cancel := context.WithCancel(ctx)
	next := make(chan error)
	go func() {
		_, err := consumer.Next(waiting)
		next <- err
	}()
	cancel()
	equal(t, "error of a canceled wait", <-next, context.Canceled)
	equal(t, "error of a canceled flush", producer.Flush(waiting), context.Canceled)
	equal(t, "error of a canceled close", producer.Close(waiting), context.Canceled)
	fails(t, consumer.Close(waiting), codes.Aborted, "NOT_COMMITTED")
	succeeds(t, client.Close())
	goleak.VerifyNone(t, before)
	broker.thaw()
}
