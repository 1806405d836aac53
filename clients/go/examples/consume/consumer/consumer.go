// Package consumer reads a topic for as long as its program runs, whatever becomes of the broker.
//
// Messages come in order, each once as long as the program lives. The position is committed behind
// what was dealt with: what was not, when the program died, comes to the next one.
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
	// Name is what others are told while this one holds the lease.
	Name string
	// Heartbeat is how long the stream may be idle before the broker shows that it lives. A stream
	// that misses three is opened again.
	Heartbeat time.Duration

	epoch int64 // Of the last stream or seek.
	next  int64 // The offset of the first message that was not dealt with.
}

// Messages gives message after message, and waits where there is none. One is dealt with when the
// next is asked for. An error comes last: the context's, or the status that the broker ended with.
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

// read goes through one stream until it ends.
func (c *Consumer) read(ctx context.Context, backoff *retry.Backoff, yield func(*trunkline.Message, error) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // Which frees the lease.
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
				c.next = 0 // Sought since the last stream: what was had before may be wanted again.
			}
			c.epoch, c.next = event.Attached.GetEpoch(), max(c.next, event.Attached.GetPosition())
		case *trunkline.ConsumeResponse_Repositioned:
			c.epoch, c.next = event.Repositioned.GetEpoch(), event.Repositioned.GetPosition()
		case *trunkline.ConsumeResponse_Gap:
			slog.Warn("messages were removed before they were read", "first", event.Gap.GetFirstOffset(), "end", event.Gap.GetEndOffset())
		case *trunkline.ConsumeResponse_Batch:
			if err := c.handOut(ctx, event.Batch.GetMessages(), yield); err != nil {
				return err
			}
		default:
			// Standby, caught up, a heartbeat or a kind still to come: a sign of life.
		}
	}
}

func (c *Consumer) handOut(ctx context.Context, messages []*trunkline.Message, yield func(*trunkline.Message, error) bool) error {
	end := messages[len(messages)-1].GetOffset() + 1
	for _, message := range messages {
		if message.GetOffset() < c.next {
			continue // Dealt with before the stream broke, but not committed.
		}
		if !yield(message, nil) {
			_ = c.commit(ctx, c.next) // If it fails, more comes again.
			return errLeft
		}
		c.next = message.GetOffset() + 1
	}
	return c.commit(ctx, min(c.next, end))
}

func (c *Consumer) commit(ctx context.Context, position int64) error {
	// What was dealt with is committed, also if the caller has stopped by now.
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
		return nil // A seek or another stream came between: the stream tells which.
	case codes.DeadlineExceeded:
		return status.Error(codes.Unavailable, "the broker did not answer a commit")
	default:
		return err
	}
}
