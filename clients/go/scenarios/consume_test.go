package scenarios

import (
	"context"
	"testing"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	untilCaughtUp = &pb.ConsumeRequest_UntilCaughtUp{UntilCaughtUp: true}
	manual        = pb.CommitMode_COMMIT_MODE_MANUAL
)

func TestOrderedConsume(t *testing.T) {
	topic := newTopic(t)
	for request := range 10 {
		topic.publish(numbered(request*100, 100)...)
	}

	frames := topic.consume(&pb.ConsumeRequest{Stop: untilCaughtUp}).rest()
	if frames[0].GetAttached() == nil {
		t.Errorf("the first frame is %v", frames[0])
	}
	if last := frames[len(frames)-1]; last.GetCaughtUp() == nil {
		t.Errorf("the last frame is %v", last)
	}
	var offset int64
	for _, frame := range frames {
		for _, message := range frame.GetBatch().GetMessages() {
			equal(t, "offset", message.GetOffset(), offset)
			equal(t, "payload", string(message.GetPayload()), string(numbered(int(offset), 1)[0].GetPayload()))
			offset++
		}
	}
	equal(t, "number of messages", offset, 1000)
	equal(t, "position", topic.consumer().GetPosition(), 1000)
	equal(t, "lag", topic.consumer().GetLag(), 0)
}

func TestManualCommitAndResume(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 10)...)
	commit := func(epoch, position int64) error {
		_, err := topic.consumers.Commit(deadline(t), &pb.CommitRequest{
			Topic:      topic.name,
			ConsumerId: billing,
			Epoch:      epoch,
			Position:   position,
		})
		return err
	}

	stream := topic.consume(&pb.ConsumeRequest{CommitMode: manual})
	epoch := stream.attached().GetEpoch()
	fourth := stream.messages(10)[3]
	succeeds(t, commit(epoch, fourth.GetOffset()+1))
	stream.cancel()

	resumed := topic.consume(&pb.ConsumeRequest{CommitMode: manual})
	equal(t, "position", resumed.attached().GetPosition(), 4)
	equal(t, "first message", resumed.messages(1)[0].GetOffset(), 4)
	refused(t, commit(epoch, 5), codes.Aborted, "LEASE_LOST")
}

func TestDeadline(t *testing.T) {
	topic := newTopic(t)
	ctx, cancel := context.WithTimeout(deadline(t), 500*time.Millisecond)
	defer cancel()
	frames, err := topic.consumers.Consume(ctx, &pb.ConsumeRequest{Topic: topic.name, ConsumerId: billing})
	succeeds(t, err)
	stream := &stream{t, frames, cancel}
	stream.attached()
	// The client may notice first, and then the error has no details.
	equal(t, "code", status.Code(stream.end()), codes.DeadlineExceeded)

	topic.consume(&pb.ConsumeRequest{}).attached()
}
