package trunkline

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const (
	// answerTimeout is how long a broker may take to answer, or to open a stream.
	answerTimeout = 30 * time.Second

	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// An attempt is one try to keep a stream open. It has a connection of its own: if a broker hangs, the
// next one may lead to another broker.
type attempt struct {
	conn    *grpc.ClientConn
	ctx     context.Context
	cancel  context.CancelCauseFunc
	silence *time.Timer // Cancels the attempt, unless it is stopped or reset in time.
}

func (c *Client) attempt(ctx context.Context, patience time.Duration) (*attempt, error) {
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(patience, func() {
		cancel(newError(codes.Unavailable, "", "the broker does not answer"))
	})
	return &attempt{conn, ctx, cancel, silence}, nil
}

// reason is why a call of the attempt failed: if the attempt was canceled, why that was.
func (a *attempt) reason(err error) error {
	if cause := context.Cause(a.ctx); cause != nil {
		return cause
	} else if err == io.EOF {
		return newError(codes.Unavailable, "", "the broker closed the stream")
	}
	return err
}

func (a *attempt) end() {
	a.silence.Stop()
	a.cancel(nil)
	_ = a.conn.Close()
}

// retryPause returns how long to wait before the next attempt, and whether there is to be one: if the
// error may pass, or has one of the reasons that the caller tries again for.
func retryPause(err error, failures int, alsoAfter ...string) (time.Duration, bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok || !e.isTransient() && !slices.Contains(alsoAfter, e.Reason) {
		return 0, false
	}
	return pauseAfter(e, failures), true
}

// pauseAfter returns how long to wait after some failures in a row. Pauses grow with each of them, and are
// shortened at random, so that clients do not all return at once.
func pauseAfter(e *Error, failures int) time.Duration {
	pause := min(firstPause<<min(failures, 10), longestPause)
	pause -= rand.N(pause / 2)
	return max(pause, min(e.RetryDelay, longestPause))
}

func sleep(ctx context.Context, pause time.Duration) {
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
}

// wake wakes the goroutine that waits for a signal, now or when it comes to wait.
func wake(signal chan<- struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}
