package trunkline

import (
	"context"
	"time"
)

// A Receipt stands for the broker's answer to a message. The messages of a request share the answer,
// so that a receipt costs next to nothing.
type Receipt struct {
	batch *batch
	index int
}

// Offset waits until the message is on disk, and returns its offset.
func (r Receipt) Offset(ctx context.Context) (int64, error) {
	if err := r.batch.wait(ctx); err != nil {
		return 0, err
	}
	return r.batch.first + int64(r.index), nil
}

// A batch is the messages of one request.
type batch struct {
	messages []*NewMessage
	bytes    int
	cost     int64     // What it counts for in the buffer.
	began    time.Time // When its first message came.
	sequence int64     // The sequence of its first message, once it is to be sent.
	wasSent  bool      // A broker may have got it.
	wasLost  bool      // It was sent on a stream that broke, so that a broker may have stored it.

	done  chan struct{} // Closed when there is an answer.
	first int64         // The offset of its first message.
	err   error
}

func (b *batch) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err // Also if the context has ended.
	default:
	}
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func wasSent(b *batch) bool { return b.wasSent }
func wasLost(b *batch) bool { return b.wasLost }
