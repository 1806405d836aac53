package scenarios

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	trunkline "github.com/trunkline/trunkline/clients/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func connect(t *testing.T, target string, options ...trunkline.Option) *trunkline.Client {
	t.Helper()
	client, err := trunkline.Dial(target, options...)
	succeeds(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// producer opens the producer shop, through the shared broker or another one.
func (topic *topic) producer(config trunkline.ProducerConfig, targets ...string) *trunkline.Producer {
	topic.t.Helper()
	config.Topic, config.ID = topic.name, shop
	client := connect(topic.t, append(targets, os.Getenv("TRUNKLINE_TARGET"))[0])
	producer, err := client.NewProducer(deadline(topic.t), config)
	succeeds(topic.t, err)
	topic.t.Cleanup(func() { abandon(producer.Close) })
	return producer
}

// reader opens the consumer billing, through the shared broker or another one.
func (topic *topic) reader(config trunkline.ConsumerConfig, targets ...string) *trunkline.Consumer {
	topic.t.Helper()
	config.Topic, config.ID = topic.name, billing
	client := connect(topic.t, append(targets, os.Getenv("TRUNKLINE_TARGET"))[0])
	return open(topic.t, client, config)
}

func open(t *testing.T, client *trunkline.Client, config trunkline.ConsumerConfig) *trunkline.Consumer {
	t.Helper()
	consumer, err := client.NewConsumer(deadline(t), config)
	succeeds(t, err)
	t.Cleanup(func() { abandon(consumer.Close) })
	return consumer
}

// abandon closes what a test may have left in the middle of its work.
func abandon(closeIt func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = closeIt(ctx)
}

// publishes publishes messages and waits for their offsets.
func publishes(t *testing.T, producer *trunkline.Producer, messages ...*trunkline.NewMessage) []int64 {
	t.Helper()
	ctx := deadline(t)
	receipts := make([]trunkline.Receipt, 0, len(messages))
	for _, message := range messages {
		receipt, err := producer.Publish(ctx, message)
		succeeds(t, err)
		receipts = append(receipts, receipt)
	}
	offsets := make([]int64, 0, len(messages))
	for _, receipt := range receipts {
		offset, err := receipt.Offset(ctx)
		succeeds(t, err)
		offsets = append(offsets, offset)
	}
	return offsets
}

// takes waits for some messages, which must have consecutive offsets.
func takes(t *testing.T, consumer *trunkline.Consumer, first int64, count int) []*trunkline.Message {
	t.Helper()
	ctx := deadline(t)
	var messages []*trunkline.Message
	for i := range count {
		message, err := consumer.Next(ctx)
		succeeds(t, err)
		equal(t, "offset", message.Offset, first+int64(i))
		messages = append(messages, message)
	}
	return messages
}

// fails checks the code and the reason of an error of the package.
func fails(t *testing.T, err error, code codes.Code, reason string) *trunkline.Error {
	t.Helper()
	var failure *trunkline.Error
	if !errors.As(err, &failure) {
		t.Fatalf("got %v, want %s", err, reason)
	}
	equal(t, "code", failure.Code, code)
	equal(t, "reason", failure.Reason, reason)
	equal(t, "code of the status", status.Code(err), code)
	return failure
}

// A logged message comes out of a channel, with its attributes.
type logged chan string

// logTo has a client's messages come out of a channel.
func logTo() (logged, trunkline.Option) {
	messages := make(logged, 1000)
	return messages, trunkline.WithLogger(slog.New(slog.NewTextHandler(messages, nil)))
}

func (messages logged) Write(line []byte) (int, error) {
	messages <- string(line)
	return len(line), nil
}

// expect waits for a log message that holds each of these texts.
func (messages logged) expect(t *testing.T, texts ...string) {
	t.Helper()
	ctx := deadline(t)
	for {
		select {
		case message := <-messages:
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(message, text) }) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("nothing was logged with %q", texts)
		}
	}
}
