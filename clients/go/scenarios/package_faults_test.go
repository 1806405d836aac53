package scenarios

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

func TestPackageSurvivesAKill(t *testing.T) {
	topic := newTopic(t)
	const count, pause = 20_000, 15_000
	broker := startBroker(t, "127.0.0.1:0")
	producer := topic.producer(trunkline.ProducerConfig{MaxBatchMessages: 100}, broker.target)
	consumer := topic.reader(trunkline.ConsumerConfig{}, broker.target)

	killed := make(chan struct{})
	receipts := make(chan trunkline.Receipt, count)
	go func() {
		defer close(receipts)
		for i, message := range numbered(0, count) {
			if i == pause {
				<-killed // So that it happens in the middle.
			}
			receipt, err := producer.Publish(t.Context(), message)
			if err != nil {
				t.Errorf("message %d: %v", i, err)
				return
			}
			receipts <- receipt
		}
	}()
	takes(t, consumer, 0, 1000)
	broker.kill()
	close(killed)
	startBroker(t, broker.target)

	for i, message := range takes(t, consumer, 1000, count-1000) {
		equal(t, "payload", string(message.Payload), fmt.Sprint("message ", 1000+i))
	}
	next := int64(0)
	for receipt := range receipts {
		offset, err := receipt.Offset(deadline(t))
		succeeds(t, err)
		equal(t, "offset of a receipt", offset, next)
		next++
	}
	equal(t, "number of receipts", next, count)
	equal(t, "head", topic.consumer().GetHead(), count)
	succeeds(t, consumer.Close(deadline(t)))
	equal(t, "position", topic.consumer().GetPosition(), count-1)
}

func TestPackageBoundedMemory(t *testing.T) {
	topic := newTopic(t)
	broker := startBroker(t, "127.0.0.1:0")
	const limit, size = 2 << 20, 100 << 10
	const fit = limit / (size + 100)
	producer := topic.producer(trunkline.ProducerConfig{MaxBufferedBytes: limit}, broker.target)
	message := &trunkline.NewMessage{Payload: make([]byte, size)}

	broker.freeze()
	for range fit {
		_, err := producer.Publish(deadline(t), message)
		succeeds(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := producer.Publish(ctx, message)
	equal(t, "error without room", err, context.DeadlineExceeded)

	waiting := make(chan error)
	go func() {
		_, err := producer.Publish(deadline(t), message)
		waiting <- err
	}()
	broker.thaw()
	succeeds(t, <-waiting)
	succeeds(t, producer.Flush(deadline(t)))
	equal(t, "head", topic.consumer().GetHead(), fit+1)
}

func TestAProducerGivesUp(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name   string
		stop   func(*broker)
		logs   string
		reason string
	}{
		// The stream has ended, so that nothing can be sent.
		{"killed", (*broker).kill, "a producer lost its stream", ""},
		{"frozen", (*broker).freeze, "", "OUTCOME_UNKNOWN"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			topic := newTopic(t)
			broker := startBroker(t, "127.0.0.1:0")
			messages, logger := logTo()
			producer, err := connect(t, broker.target, logger).NewProducer(deadline(t), trunkline.ProducerConfig{
				Topic: topic.name, ID: shop, RetryFor: 3 * time.Second, MaxBufferedBytes: 2 << 20,
			})
			succeeds(t, err)
			t.Cleanup(func() { abandon(producer.Close) })
			publishes(t, producer, numbered(0, 1)...)
			fault.stop(broker)
			if fault.logs != "" {
				messages.expect(t, fault.logs)
			}

			// More than there is room for: the last one waits until the others have failed.
			large := &trunkline.NewMessage{Payload: make([]byte, 1<<20)}
			receipt, err := producer.Publish(deadline(t), large)
			succeeds(t, err)
			_, err = producer.Publish(deadline(t), large)
			lost := fails(t, err, codes.Unavailable, "") // It was not even taken.
			equal(t, "says for how long", strings.Contains(lost.Error(), "no broker answered for 3s"), true)
			_, err = receipt.Offset(deadline(t))
			fails(t, err, codes.Unavailable, fault.reason)
			fails(t, producer.Close(deadline(t)), codes.Unavailable, fault.reason)
		})
	}
}

func TestOnlyWhatWasSentHasAnUnknownOutcome(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *trunkline.Producer){
		"closed": func(_ *testing.T, producer *trunkline.Producer) { abandon(producer.Close) },
		"given up": func(t *testing.T, producer *trunkline.Producer) {
			// The newest message was not sent, but others were.
			fails(t, producer.Flush(deadline(t)), codes.Unavailable, "OUTCOME_UNKNOWN")
		},
	} {
		t.Run(name, func(t *testing.T) {
			topic := newTopic(t)
			broker := startBroker(t, "127.0.0.1:0")
			config := trunkline.ProducerConfig{RetryFor: 2 * time.Second, MaxBatchMessages: 1}
			producer := topic.producer(config, broker.target)
			publishes(t, producer, numbered(0, 1)...)
			broker.freeze()
			var receipts []trunkline.Receipt
			for _, message := range numbered(1, 9) { // One more than the requests that may be unanswered.
				receipt, err := producer.Publish(deadline(t), message)
				succeeds(t, err)
				receipts = append(receipts, receipt)
			}
			end(t, producer)
			_, err := receipts[0].Offset(deadline(t))
			fails(t, err, codes.Unavailable, "OUTCOME_UNKNOWN")
			_, err = receipts[8].Offset(deadline(t))
			if name == "closed" {
				equal(t, "error", err, trunkline.ErrClosed)
			} else {
				fails(t, err, codes.Unavailable, "")
			}
		})
	}
}

func TestPackageErrors(t *testing.T) {
	topic := newTopic(t)
	client := connect(t, os.Getenv("TRUNKLINE_TARGET"))
	ctx := deadline(t)

	_, err := client.NewProducer(ctx, trunkline.ProducerConfig{Topic: topic.name + "-missing", ID: shop})
	missing := fails(t, err, codes.NotFound, "TOPIC_NOT_FOUND")
	equal(t, "topic", missing.Metadata["topic"], topic.name+"-missing")
	_, err = client.NewConsumer(ctx, trunkline.ConsumerConfig{Topic: topic.name + "-missing", ID: billing})
	fails(t, err, codes.NotFound, "TOPIC_NOT_FOUND")
	_, err = client.Topics.GetTopic(ctx, &pb.GetTopicRequest{Topic: topic.name + "-missing"})
	fails(t, err, codes.NotFound, "TOPIC_NOT_FOUND")
	refusal := fails(t, client.EnsureTopic(ctx, "no/slashes"), codes.InvalidArgument, "INVALID_FIELD")
	equal(t, "field", refusal.Violations[0].GetField(), "topic")

	first := topic.producer(trunkline.ProducerConfig{})
	equal(t, "offset", publishes(t, first, numbered(0, 1)...)[0], 0)
	_, err = first.Publish(ctx, &trunkline.NewMessage{Payload: bytes.Repeat([]byte{'x'}, 1<<20+1)})
	tooLarge := fails(t, err, codes.InvalidArgument, "INVALID_FIELD")
	equal(t, "field", tooLarge.Violations[0].GetField(), "message")
	equal(t, "limit", tooLarge.Metadata["limit"], "1048576")
	equal(t, "text", tooLarge.Error(), "message: is 1048577 bytes, and the limit is 1048576 (INVALID_FIELD)")
	equal(t, "offset", publishes(t, first, numbered(1, 1)...)[0], 1)

	second := topic.producer(trunkline.ProducerConfig{})
	receipt, err := first.Publish(ctx, numbered(2, 1)[0])
	succeeds(t, err)
	_, err = receipt.Offset(ctx)
	fails(t, err, codes.FailedPrecondition, "PRODUCER_FENCED")
	_, err = first.Publish(ctx, numbered(2, 1)[0])
	fails(t, err, codes.FailedPrecondition, "PRODUCER_FENCED")
	equal(t, "offset", publishes(t, second, numbered(2, 1)...)[0], 2)

	broker := startBroker(t, "127.0.0.1:0")
	stream, err := connect(t, broker.target).Consumers.Consume(ctx, &pb.ConsumeRequest{Topic: topic.name, ConsumerId: billing})
	succeeds(t, err)
	_, err = stream.Recv()
	succeeds(t, err)
	broker.stop()
	for err == nil {
		_, err = stream.Recv()
	}
	equal(t, "retry delay", fails(t, err, codes.Unavailable, "DRAINING").RetryDelay, 500*time.Millisecond)
}

func TestPackageLease(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 10)...)
	messages, logger := logTo()
	client := connect(t, os.Getenv("TRUNKLINE_TARGET"), logger)
	config := trunkline.ConsumerConfig{Topic: topic.name, ID: billing, ClientName: "ann"}

	ann := open(t, client, config)
	takes(t, ann, 0, 4)
	config.ClientName = "bob"
	bob := open(t, client, config)
	messages.expect(t, "a consumer waits for the lease", "holder=ann")
	succeeds(t, ann.Close(deadline(t)))
	_, err := ann.Next(deadline(t))
	equal(t, "error of a closed consumer", err, trunkline.ErrClosed)
	takes(t, bob, 3, 4) // The fourth message was not finished.

	config.ClientName, config.TakeOver = "cleo", true
	cleo := open(t, client, config)
	for err = nil; err == nil; {
		_, err = bob.Next(deadline(t))
	}
	taken := fails(t, err, codes.Aborted, "LEASE_TAKEN_OVER")
	equal(t, "new holder", taken.Metadata["holder"], "cleo")
	topic.publish(numbered(10, 1)...) // Bob may have committed all the others.
	_, err = cleo.Next(deadline(t))
	succeeds(t, err)
}

func TestASilentBrokerIsLeft(t *testing.T) {
	topic := newTopic(t)
	messages, logger := logTo()
	broker := startBroker(t, "127.0.0.1:0")
	client := connect(t, broker.target, logger)
	consumer := open(t, client, trunkline.ConsumerConfig{Topic: topic.name, ID: billing, Heartbeat: 100 * time.Millisecond})
	topic.publish(numbered(0, 1)...)
	takes(t, consumer, 0, 1)
	broker.freeze()
	messages.expect(t, "a consumer lost its stream", "the broker does not answer")
	broker.thaw()
	topic.publish(numbered(1, 1)...)
	takes(t, consumer, 1, 1)
}

// The broker asks to try again after a delay.
func TestAConsumerWaitsForAStreamOfTheBroker(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 1)...)
	messages, logger := logTo()
	broker := startBroker(t, "127.0.0.1:0", "--max-streams", "1")
	client := connect(t, broker.target, logger)
	first := open(t, client, trunkline.ConsumerConfig{Topic: topic.name, ID: billing})
	takes(t, first, 0, 1)
	second := open(t, client, trunkline.ConsumerConfig{Topic: topic.name, ID: "another"})
	messages.expect(t, "a consumer lost its stream", "TOO_MANY_STREAMS")
	succeeds(t, first.Close(deadline(t)))
	takes(t, second, 0, 1)
}
