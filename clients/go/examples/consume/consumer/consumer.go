// Package consumer reads a topic for as long as its program runs, and resumes after every break.
//
// Messages come in order, each once while the program lives. The position is committed after each
// batch. If the program dies, the next one starts again at the committed position.
package consumer

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/trunkline/trunkline/clients/go/examples/retry"
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const commitTimeout = 10 * time.Second

var (
	errSilent = status.Error(codes.Unavailable, "the broker fell silent")
	errLeft   = errors.New("the caller left the loop")
)

// A Consumer reads under an id that is registered on a topic.
type Consumer struct {
	Service   trunkline.ConsumerServiceClient
	Topic, ID string
	// Name is how others see this consumer while it holds the lease.
	Name string
	// Heartbeat is how long the stream may be idle before the broker sends a heartbeat. A stream
	// that misses three of them is opened again.
	Heartbeat time.Duration

	epoch int64 // The last epoch that the broker gave.
	next  int64 // The offset of the first message that was not handled.
}

// Messages yields message after message, and waits when there is none. A message counts as handled
// when the loop asks for the next one. An error comes last: the context's, or the status with which
// the broker ended the stream.
func (c *Consumer) Messages(ctx context.Context) iter.Seq2[*trunkline.Message, error] {
	return func(yield func(*trunkline.Message, error) bool) {
		var backoff retry.Backoff
		for {
			err := c.read(ctx, &backoff, yield)
			if ctx.Err() == nil && status.Code(err) == codes.Unavailable {
				err = backoff.Wait(ctx, err)
			}
			switch {
			case errors.Is(err, errLeft):
				return
			case ctx.Err() != nil:
				yield(nil, ctx.Err())
				return
			case err != nil:
				yield(nil, err)
				return
			}
		}
	}
}

// read reads one stream until it ends.
func (c *Consumer) read(ctx context.Context, backoff *retry.Backoff, yield func(*trunkline.Message, error) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // Frees the lease.
	stream, err := c.Service.Consume(ctx, &trunkline.ConsumeRequest{
		Topic:             c.Topic,
		ConsumerId:        c.ID,
		CommitMode:        trunkline.CommitMode_COMMIT_MODE_MANUAL,
		HeartbeatInterval: durationpb.New(c.Heartbeat),
		ClientName:        c.Name,
	})
	if err != nil {
		return err
	}
	for {
		silence := time.AfterFunc(3*c.Heartbeat, func() { cancel(errSilent) })
		frame, err := stream.Recv()
		silence.Stop()
		if err != nil && context.Cause(ctx) == errSilent {
			return errSilent
		} else if err != nil {
			return err
		}
		backoff.Reset()

		switch event := frame.GetEvent().(type) {
		case *trunkline.ConsumeResponse_Attached:
			if event.Attached.GetSeekEpoch() > c.epoch {
				c.next = 0 // A seek since the last stream: handled messages must be handled again.
			}
			c.epoch, c.next = event.Attached.GetEpoch(), max(c.next, event.Attached.GetPosition())
		case *trunkline.ConsumeResponse_Repositioned:
			c.epoch, c.next = event.Repositioned.GetEpoch(), event.Repositioned.GetPosition()
		case *trunkline.ConsumeResponse_Gap:
			slog.Warn("messages were removed before they were read", "first", event.Gap.GetFirstOffset(), "end", event.Gap.GetEndOffset())
		case *trunkline.ConsumeResponse_Batch:
			if err := c.deliver(ctx, event.Batch.GetMessages(), yield); err != nil {
				return err
			}
		default:
			// Frames of other kinds, including unknown ones, only show that the stream is alive.
		}
	}
}

func (c *Consumer) deliver(ctx context.Context, messages []*trunkline.Message, yield func(*trunkline.Message, error) bool) error {
	end := messages[len(messages)-1].GetOffset() + 1
	for _, message := range messages {
		if message.GetOffset() < c.next {
			continue // Handled before the stream broke, but not committed.
		}
		if !yield(message, nil) {
			_ = c.commit(ctx, c.next) // If this fails, some messages are delivered again.
			return errLeft
		}
		c.next = message.GetOffset() + 1
	}
	return c.commit(ctx, min(c.next, end))
}

func (c *Consumer) commit(ctx context.Context, position int64) error {
	// What was handled is committed even if the caller's context has ended by now.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	_, err := c.Service.Commit(ctx, &trunkline.CommitRequest{
		Topic:      c.Topic,
		ConsumerId: c.ID,
		Epoch:      c.epoch,
		Position:   position,
	})
	switch status.Code(err) {
	case codes.Aborted:
		return nil // The lease is lost, or a seek moved the position: the stream says which.
	case codes.DeadlineExceeded:
		return status.Error(codes.Unavailable, "the broker did not answer a commit")
	default:
		return err
	}
}
