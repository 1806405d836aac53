package scenarios

import (
	"slices"
	"testing"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestResumeAfterARestart(t *testing.T) {
	topic := newTopic(t)
	broker := startBroker(t, "127.0.0.1:0")
	topic.publish(numbered(0, 100)...)

	var next int64
	reader := topic.reader(trunkline.ConsumerConfig{}, broker.target)
	for message, err := range reader.Messages(deadline(t)) {
		succeeds(t, err)
		equal(t, "offset", message.Offset, next)
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
	succeeds(t, reader.Close(deadline(t)))
	equal(t, "position", topic.consumer().GetPosition(), 199)
}

func TestResumeAtTheTargetOfASeek(t *testing.T) {
	topic := newTopic(t)
	broker := startBroker(t, "127.0.0.1:0")
	topic.publish(numbered(0, 10)...)
	seek := func(offset int64) {
		t.Helper()
		_, err := topic.consumers.Seek(deadline(t), &pb.SeekRequest{
			Topic:      topic.name,
			ConsumerId: billing,
			Target:     &pb.SeekRequest_Offset{Offset: offset},
		})
		succeeds(t, err)
	}

	var offsets []int64
	reader := topic.reader(trunkline.ConsumerConfig{}, broker.target)
	for message, err := range reader.Messages(deadline(t)) {
		if err != nil {
			t.Fatalf("after %v: %v", offsets, err)
		}
		offsets = append(offsets, message.Offset)
		if len(offsets) == 10 {
			seek(2)
		}
		if len(offsets) == 18 {
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
