package trunkline

import (
	"context"
	"log/slog"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A reader reads a consumer's stream, and opens it again after a break. The broker then repeats what
// was not committed, and the reader skips what it has read before.
type reader struct {
	*Consumer
	log      *slog.Logger
	stream   progress
	next     int64 // The offset of the next message to read.
	failures int   // Since the last message or heartbeat.
}

// A frame is messages that arrived together, or the news that nothing is left to read.
type frame struct {
	messages []*pb.Message
	epoch    int64 // In which it arrived.
	seeks    int64 // How many seeks came before it.
	caughtUp bool
}

func (r *reader) run(ctx context.Context) {
	defer r.stop()
	defer close(r.frames)
	for {
		err := r.read(ctx)
		if ctx.Err() != nil {
			r.err = ErrClosed
			return
		}
		pause, ok := retryPause(err, r.failures, "LEASE_LOST") // It waits for the lease again.
		if !ok {
			r.err = err
			return
		}
		r.failures++
		r.log.Warn("a consumer lost its stream", "error", err)
		sleep(ctx, pause)
	}
}

// read reads one stream, until it ends.
func (r *reader) read(ctx context.Context) error {
	a, err := r.client.attempt(ctx, answerTimeout)
	if err != nil {
		return err
	}
	defer a.end()
	r.stream.consumers, r.stream.delivered = pb.NewConsumerServiceClient(a.conn), 0
	r.commits.observe(r.stream)
	stream, err := r.stream.consumers.Consume(a.ctx, r.request())
	if err != nil {
		return a.reason(err)
	}
	for {
		response, err := stream.Recv()
		if a.silence.Stop(); err != nil {
			return a.reason(err)
		}
		r.observe(a.ctx, response)
		a.silence.Reset(3 * r.config.Heartbeat)
	}
}

// request does not ask the broker to stop: the lease is held until the last message is committed.
func (r *reader) request() *pb.ConsumeRequest {
	request := &pb.ConsumeRequest{
		Topic:             r.config.Topic,
		ConsumerId:        r.config.ID,
		CommitMode:        pb.CommitMode_COMMIT_MODE_MANUAL,
		ClientName:        r.config.ClientName,
		MaxInFlight:       int32(r.config.MaxInFlight),
		HeartbeatInterval: durationpb.New(r.config.Heartbeat),
	}
	if r.config.TakeOver && r.stream.epoch == 0 { // If it loses the lease later, it waits.
		request.OnBusy = pb.OnBusy_ON_BUSY_TAKE_OVER
	}
	return request
}

func (r *reader) observe(ctx context.Context, response *pb.ConsumeResponse) {
	switch event := response.GetEvent().(type) {
	case *pb.ConsumeResponse_Attached:
		r.attach(event.Attached)
	case *pb.ConsumeResponse_Repositioned:
		r.seekTo(event.Repositioned.GetPosition())
		r.stream.epoch = event.Repositioned.GetEpoch()
		r.commits.observe(r.stream)
	case *pb.ConsumeResponse_Standby:
		r.log.Info("a consumer waits for the lease", "holder", event.Standby.GetHolder())
	case *pb.ConsumeResponse_Gap:
		first, end := event.Gap.GetFirstOffset(), event.Gap.GetEndOffset()
		r.log.Warn("messages were removed before they were read", "first", first, "end", end)
		r.skipTo(end)
	case *pb.ConsumeResponse_Batch:
		r.failures = 0
		r.deliver(ctx, event.Batch.GetMessages())
	case *pb.ConsumeResponse_CaughtUp:
		if r.config.UntilCaughtUp {
			r.hand(ctx, frame{caughtUp: true})
		}
	case *pb.ConsumeResponse_Heartbeat:
		r.failures = 0
	}
}

func (r *reader) attach(attached *pb.Attached) {
	// Epochs or offsets begin again if the consumer was registered again, or the topic created again.
	isOther := attached.GetEpoch() <= r.stream.epoch || attached.GetHead() < r.next
	if r.stream.epoch > 0 && (isOther || attached.GetSeekEpoch() > r.stream.epoch) {
		r.seekTo(attached.GetPosition())
	}
	r.stream.epoch, r.stream.position = attached.GetEpoch(), attached.GetPosition()
	r.next = max(r.next, attached.GetPosition()) // Another stream may have read on meanwhile.
	r.commits.observe(r.stream)
}

// seekTo continues from a position, and makes void what was read before.
func (r *reader) seekTo(position int64) {
	r.next, r.stream.position, r.stream.delivered = position, position, 0
	r.stream.seeks = r.seeks.Add(1)
}

func (r *reader) deliver(ctx context.Context, messages []*pb.Message) {
	if len(messages) == 0 {
		return
	}
	first := messages[0].GetOffset()
	end := first + int64(len(messages))
	unread := messages[min(max(0, r.next-first), end-first):]
	r.skipTo(end)
	if len(unread) > 0 {
		r.hand(ctx, frame{messages: unread})
	}
}

// skipTo records that the stream has come to an offset.
func (r *reader) skipTo(end int64) {
	r.stream.delivered, r.next = end, max(r.next, end)
	r.commits.observe(r.stream)
}

// hand gives the caller a frame, once it has taken the one before.
func (r *reader) hand(ctx context.Context, f frame) {
	f.epoch, f.seeks = r.stream.epoch, r.stream.seeks
	select {
	case r.frames <- f:
	case <-ctx.Done():
	}
}
