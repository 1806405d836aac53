package scenarios

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestPackagePublishAndConsume(t *testing.T) {
	t.Parallel()
	const count = 10_000
	client := connect(t, os.Getenv("TRUNKLINE_TARGET"))
	name := newName(t)
	for range 2 { // Created, and then there.
		succeeds(t, client.EnsureTopic(deadline(t), name))
	}
	producer, err := client.NewProducer(deadline(t), trunkline.ProducerConfig{Topic: name, ID: shop})
	succeeds(t, err)
	sent := numbered(0, count)
	for i, message := range sent {
		message.Key = fmt.Append(nil, "key ", i%7)
		message.Headers = map[string]string{"number": fmt.Sprint(i)}
	}
	for i, offset := range publishes(t, producer, sent...) {
		equal(t, "offset of a receipt", offset, int64(i))
	}
	succeeds(t, producer.Close(deadline(t)))

	config := trunkline.ConsumerConfig{Topic: name, ID: billing, UntilCaughtUp: true}
	next := 0
	for message, err := range open(t, client, config).Messages(deadline(t)) {
		succeeds(t, err)
		equal(t, "offset", message.Offset, int64(next))
		same := &pb.NewMessage{Payload: message.Payload, Key: message.Key, Headers: message.Headers}
		if !proto.Equal(same, sent[next]) {
			t.Fatalf("got %v, want %v", same, sent[next])
		}
		equal(t, "producer", message.ProducerId, shop)
		equal(t, "is recent", time.Since(message.PublishTime.AsTime()).Abs() < time.Hour, true)
		next++
	}
	equal(t, "number of messages", next, count)
	for message, err := range open(t, client, config).Messages(deadline(t)) {
		t.Fatalf("another consumer got %v, %v", message, err)
	}
}

func TestPackageCommitAndResume(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 20)...)

	byHand := topic.reader(trunkline.ConsumerConfig{ManualCommit: true})
	byHand.Commit(takes(t, byHand, 0, 10)[3])
	succeeds(t, byHand.Close(deadline(t)))
	equal(t, "position", topic.consumer().GetPosition(), 4)

	failing := topic.reader(trunkline.ConsumerConfig{})
	for range 2 { // The message that failed comes again.
		for message, err := range failing.Messages(deadline(t)) {
			succeeds(t, err)
			if message.Offset == 12 {
				break
			}
		}
	}
	succeeds(t, failing.Close(deadline(t)))
	equal(t, "position", topic.consumer().GetPosition(), 12)
	takes(t, topic.reader(trunkline.ConsumerConfig{}), 12, 8)
}

func TestACommittedMessageDoesNotComeAgain(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 10)...)
	reader := topic.reader(trunkline.ConsumerConfig{})
	for message, err := range reader.Messages(deadline(t)) {
		succeeds(t, err)
		reader.Commit(message)
		break
	}
	takes(t, reader, 1, 1)
	succeeds(t, reader.Close(deadline(t)))
	equal(t, "position", topic.consumer().GetPosition(), 1)
}

// With commits by hand, what was read before the end is committed after it.
func TestMessagesAreCommittedAfterTheEnd(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 10)...)
	reader := topic.reader(trunkline.ConsumerConfig{ManualCommit: true, UntilCaughtUp: true})
	var last *trunkline.Message
	for message, err := range reader.Messages(deadline(t)) {
		succeeds(t, err)
		last = message
	}
	topic.publish(numbered(10, 10)...)
	reader.Commit(last)
	succeeds(t, reader.Close(deadline(t)))
	equal(t, "position", topic.consumer().GetPosition(), 10)
}

// While the caller works on a message, the ones before it are committed.
func TestFinishedMessagesAreCommittedInTheBackground(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 10)...)
	takes(t, topic.reader(trunkline.ConsumerConfig{}), 0, 5)
	for ctx := deadline(t); topic.consumer().GetPosition() != 4; {
		succeeds(t, ctx.Err())
	}
}

func TestMaxInFlightDoesNotHoldUpAConsumerThatCommits(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 100)...)
	takes(t, topic.reader(trunkline.ConsumerConfig{MaxInFlight: 1}), 0, 100)
}

func TestMaxInFlightHoldsUpAConsumerThatDoesNotCommit(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 10)...)
	reader := topic.reader(trunkline.ConsumerConfig{MaxInFlight: 3, ManualCommit: true})
	messages := takes(t, reader, 0, 3)
	ctx, cancel := context.WithTimeout(deadline(t), 100*time.Millisecond)
	defer cancel()
	_, err := reader.Next(ctx)
	equal(t, "error", err, context.DeadlineExceeded)
	reader.Commit(messages[2])
	takes(t, reader, 3, 3)
}

func TestANewConsumerBeginsAtItsStart(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 5)...)
	client := connect(t, os.Getenv("TRUNKLINE_TARGET"))
	consumers := map[int64]*trunkline.Consumer{}
	for first, start := range map[int64]trunkline.Start{
		0: trunkline.AtTime(time.Unix(0, 0)),
		3: trunkline.AtOffset(3),
		5: trunkline.Latest(),
	} {
		id := fmt.Sprint("from-", first)
		consumers[first] = open(t, client, trunkline.ConsumerConfig{Topic: topic.name, ID: id, Start: start})
	}
	topic.publish(numbered(5, 1)...)
	for first, consumer := range consumers {
		takes(t, consumer, first, 1)
	}
}

func TestEnsureTopicWithOptions(t *testing.T) {
	t.Parallel()
	client := connect(t, os.Getenv("TRUNKLINE_TARGET"))
	name := newName(t)
	kept := func(age time.Duration) trunkline.TopicOption {
		return func(request *pb.CreateTopicRequest) {
			request.Retention = &pb.Retention{MaxAge: durationpb.New(age)}
		}
	}
	succeeds(t, client.EnsureTopic(deadline(t), name, kept(time.Hour)))
	succeeds(t, client.EnsureTopic(deadline(t), name, kept(time.Hour)))
	err := client.EnsureTopic(deadline(t), name, kept(time.Minute))
	differs := fails(t, err, codes.AlreadyExists, "TOPIC_DIFFERS")
	equal(t, "what differs", differs.Metadata["fields"], "retention")
}
