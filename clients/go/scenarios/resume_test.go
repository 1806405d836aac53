package scenarios

import (
	"slices"
	"testing"
	"time"

	"github.com/trunkline/trunkline/clients/go/examples/consume/consumer"
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestResumeAfterARestart(t *testing.T) {
	topic := newTopic(t)
	broker := startBroker(t, "127.0.0.1:0")
	topic.publish(numbered(0, 100)...)

	var next int64
	for message, err := range readerOf(topic, broker).Messages(deadline(t)) {
		succeeds(t, err)
		equal(t, "offset", message.GetOffset(), next)
		next++
		if next == 50 {
			// In the middle of a batch, of which nothing is committed.
			broker.stop()
			broker = startBroker(t, broker.target)
			topic.publish(numbered(100, 100)...)
		}
		if next == 200 {
			break
		}
	}
	equal(t, "position", topic.consumer().GetPosition(), 199)
}

func TestResumeAtTheTargetOfASeek(t *testing.T) {
	topic := newTopic(t)
	broker := startBroker(t, "127.0.0.1:0")
	topic.publish(numbered(0, 10)...)
	seek := func(offset int64) {
		t.Helper()
		_, err := topic.consumers.Seek(deadline(t), &trunkline.SeekRequest{
			Topic:      topic.name,
			ConsumerId: billing,
			Target:     &trunkline.SeekRequest_Offset{Offset: offset},
		})
		succeeds(t, err)
	}

	var offsets []int64
	for message, err := range readerOf(topic, broker).Messages(deadline(t)) {
		if err != nil {
			t.Fatalf("after %v: %v", offsets, err)
		}
		offsets = append(offsets, message.GetOffset())
		if len(offsets) == 5 {
			seek(2)
		}
		if len(offsets) == 15 {
			// Between two streams: the first one has already delivered later messages.
			broker.stop()
			seek(4)
			broker = startBroker(t, broker.target)
		}
		if len(offsets) == 24 {
			break
		}
	}
	want := []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 8, 9}
	if !slices.Equal(offsets, want) {
		t.Errorf("got %v, want %v", offsets, want)
	}
}

func readerOf(topic *topic, broker *broker) *consumer.Consumer {
	return &consumer.Consumer{
		Service:   trunkline.NewConsumerServiceClient(dial(topic.t, broker.target)),
		Topic:     topic.name,
		ID:        billing,
		Name:      topic.t.Name(),
		Heartbeat: time.Second,
	}
}
