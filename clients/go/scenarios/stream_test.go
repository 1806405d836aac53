package scenarios

import (
	"context"
	"io"
	"testing"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc"
)

// A stream of the consumer billing.
type stream struct {
	t      *testing.T
	frames grpc.ServerStreamingClient[pb.ConsumeResponse]
	cancel context.CancelFunc
}

// consume opens a stream; topic and consumer are filled in.
func (topic *topic) consume(request *pb.ConsumeRequest) *stream {
	topic.t.Helper()
	request.Topic, request.ConsumerId = topic.name, billing
	ctx, cancel := context.WithCancel(deadline(topic.t))
	topic.t.Cleanup(cancel)
	frames, err := topic.consumers.Consume(ctx, request)
	succeeds(topic.t, err)
	return &stream{topic.t, frames, cancel}
}

func (stream *stream) next() *pb.ConsumeResponse {
	stream.t.Helper()
	frame, err := stream.frames.Recv()
	succeeds(stream.t, err)
	return frame
}

// attached waits for the attached frame, past any standby frames.
func (stream *stream) attached() *pb.Attached {
	stream.t.Helper()
	for {
		frame := stream.next()
		if attached := frame.GetAttached(); attached != nil {
			return attached
		}
		if frame.GetStandby() == nil {
			stream.t.Fatalf("got %v, want attached", frame)
		}
	}
}

// messages waits for at least this many messages; the last frame may hold more.
func (stream *stream) messages(count int) []*pb.Message {
	stream.t.Helper()
	var messages []*pb.Message
	for len(messages) < count {
		messages = append(messages, stream.next().GetBatch().GetMessages()...)
	}
	return messages
}

// rest returns all frames until the stream ends OK.
func (stream *stream) rest() []*pb.ConsumeResponse {
	stream.t.Helper()
	var frames []*pb.ConsumeResponse
	for {
		frame, err := stream.frames.Recv()
		if err == io.EOF {
			return frames
		}
		succeeds(stream.t, err)
		frames = append(frames, frame)
	}
}

// end returns the error with which the stream ends, and skips all frames before it.
func (stream *stream) end() error {
	for {
		if _, err := stream.frames.Recv(); err != nil {
			return err
		}
	}
}
