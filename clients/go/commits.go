package trunkline

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

// Finished messages are committed when there are so many of them, or after so long.
const (
	commitMessages = 5_000
	commitInterval = 50 * time.Millisecond
)

// commits knows what the caller has finished, and commits it.
type commits struct {
	config  ConsumerConfig
	log     *slog.Logger
	most    int64         // How many messages wait for a commit at most.
	changed chan struct{} // Something is to be committed.
	hurry   chan struct{} // It is to be committed now.
	renewed chan struct{} // An epoch has begun, so that a commit may succeed that failed before.

	mu        sync.Mutex
	stream    progress
	finished  int64 // The offset after the last message that is finished.
	committed int64 // The position that the broker has stored.
	isOver    bool  // The stream's epoch has ended. Commits wait for the next one.
	failure   error // Why the last commit failed, if it did.
	failures  int   // In a row.
}

// progress is what a stream has delivered, and how to commit it.
type progress struct {
	consumers pb.ConsumerServiceClient
	epoch     int64
	position  int64 // Where the epoch began.
	delivered int64 // The offset after the last message of this stream: no commit may exceed it.
	seeks     int64
}

func newCommits(config ConsumerConfig, log *slog.Logger) *commits {
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	c := &commits{config: config, log: log, most: commitMessages, changed: signal(), hurry: signal(), renewed: signal()}
	if config.MaxInFlight > 0 {
		c.most = min(c.most, int64(config.MaxInFlight+1)/2) // Or the stream would wait for commits.
	}
	return c
}

// observe records what the stream has delivered by now.
func (c *commits) observe(stream progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stream.seeks != c.stream.seeks {
		c.finished, c.committed = 0, 0
	}
	if stream.epoch != c.stream.epoch {
		c.isOver, c.failure, c.failures = false, nil, 0
		wake(c.renewed)
	}
	c.stream = stream
	c.committed = max(c.committed, stream.position)
	c.schedule()
}

// finish records that a message is finished which ends at this position.
func (c *commits) finish(seeks, position int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seeks == c.stream.seeks && position > c.finished {
		c.finished = position
		c.schedule()
	}
}

func (c *commits) schedule() {
	pending := c.committable() - c.committed
	if pending > 0 {
		wake(c.changed)
	}
	if pending >= c.most {
		wake(c.hurry)
	}
}

// committable is the position up to which the stream may commit.
func (c *commits) committable() int64 { return min(c.finished, c.stream.delivered) }

// run commits in the background, until the consumer is closed.
func (c *commits) run(ctx context.Context) {
	for {
		select {
		case <-c.changed:
		case <-ctx.Done():
			return
		}
		select {
		case <-c.hurry:
		case <-time.After(commitInterval):
		case <-ctx.Done():
			return
		}
		if pause := c.commit(ctx); pause > 0 {
			select {
			case <-c.renewed:
			case <-time.After(pause):
			case <-ctx.Done():
			}
			wake(c.changed)
		}
	}
}

// commit commits what is finished, if the stream may. If that fails, it returns when to try again,
// and 0 if not before the next epoch.
func (c *commits) commit(ctx context.Context) time.Duration {
	c.mu.Lock()
	stream, position := c.stream, c.committable()
	isDue := position > c.committed && !c.isOver
	c.mu.Unlock()
	if !isDue {
		return 0
	}
	_, err := call(ctx, stream.consumers.Commit, &pb.CommitRequest{
		Topic: c.config.Topic, ConsumerId: c.config.ID, Epoch: stream.epoch, Position: position,
	})
	if ctx.Err() != nil {
		return 0 // The caller has given up, and knows why.
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && !hasReason(err, "COMMIT_BEHIND") { // It is committed, and more.
		return c.fail(stream, err)
	}
	c.failure, c.failures = nil, 0
	if stream.seeks == c.stream.seeks {
		c.committed = max(c.committed, position)
	}
	return 0
}

// fail records why a commit failed, and returns when to try again.
func (c *commits) fail(stream progress, err error) time.Duration {
	if stream.epoch != c.stream.epoch {
		return firstPause // Another epoch has begun.
	}
	c.failure = err
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = newError(codes.Unknown, "", err.Error())
	}
	if e.Code == codes.Aborted {
		c.isOver = true // A seek is on its way, or another stream has the lease: this one says so.
		return 0
	}
	select {
	case <-c.renewed: // That was for this epoch.
	default:
	}
	pause := pauseAfter(e, c.failures)
	c.failures++
	c.log.Warn("a commit failed", "error", err, "pause", pause)
	return pause
}

// refusal is why the broker refuses commits for now, if it does.
func (c *commits) refusal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isRefusal(c.failure) && !c.isOver {
		return c.failure
	}
	return nil
}

// lastFailure is why the last commit failed, if it did.
func (c *commits) lastFailure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

func (c *commits) isFinished(message *Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return message.GetOffset() < c.finished
}

func (c *commits) arePending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.finished > c.committed
}
