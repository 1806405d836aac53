package trunkline

import (
	"log/slog"
	"testing"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestMessagesFromBeforeASeekAreDropped(t *testing.T) {
	c := &Consumer{frames: make(chan frame, 1), commits: newCommits(ConsumerConfig{}, slog.Default())}
	offset := func() int64 {
		t.Helper()
		message, err := c.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return message.Offset
	}
	c.frames <- frame{messages: messages(0, 10)}
	if got := offset(); got != 0 {
		t.Fatalf("got %d, want 0", got)
	}
	stale := c.handed
	c.commits.observe(progress{seeks: c.seeks.Add(1), position: 3, delivered: 3})
	c.frames <- frame{messages: messages(3, 2), seeks: 1}
	for want := int64(3); want < 5; want++ {
		if got := offset(); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	}
	stale.Message.Offset = 9
	if err := c.Commit(stale); err != nil {
		t.Fatal(err)
	}
	if c.commits.finished != 4 {
		t.Fatalf("what comes before %d is finished, want 4", c.commits.finished)
	}
}

func messages(first int64, count int) []*pb.Message {
	messages := make([]*pb.Message, count)
	for i := range messages {
		messages[i] = &pb.Message{Offset: first + int64(i)}
	}
	return messages
}
