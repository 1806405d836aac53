// Package retry waits before a broken stream is opened again.
package retry

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

const (
	first   = 100 * time.Millisecond
	longest = 5 * time.Second
)

// A Backoff is a pause that grows with each failure. Its zero value is ready for use.
type Backoff struct {
	failures int
}

// Reset starts over after a success.
func (b *Backoff) Reset() {
	b.failures = 0
}

// Wait waits until it is time to retry after this error, or the context ends.
func (b *Backoff) Wait(ctx context.Context, err error) error {
	pause := min(first<<min(b.failures, 10), longest)
	b.failures++
	// Shortened at random, so that clients do not all reconnect at once.
	pause = pause/2 + rand.N(pause/2)
	pause = max(pause, wanted(err))
	slog.Warn("the stream broke, and is opened again", "error", err, "pause", pause)
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wanted is the delay that the broker asks for; 0 if it does not ask.
func wanted(err error) time.Duration {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
