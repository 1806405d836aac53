package trunkline

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

// closeTimeout is how long closing waits for the last commit.
const closeTimeout = 10 * time.Second

// A Message is a message that was received.
type Message struct {
	*pb.Message
	// Epoch is the epoch in which the consumer read the message. The SQL function
	// trunkline.commit_position takes it. It refuses an epoch that has ended, as another consumer may
	// have processed the message by then. Only for a consumer with ManualCommit.
	Epoch int64
	seeks int64 // How many seeks came before it was read.
}

// A Consumer reads a topic. It yields each message once and in order, until a seek moves its position.
// What is finished is committed in the background. After a crash, messages come again that were not
// committed.
//
// Only one goroutine at a time may ask for messages or close the consumer. Any goroutine may commit.
type Consumer struct {
	client  *Client
	config  ConsumerConfig
	commits *commits
	frames  chan frame   // Closed when the reader has stopped.
	seeks   atomic.Int64 // How many seeks the reader has seen. What was read before the last one is void.
	err     error        // Why the reader stopped.
	stop    context.CancelFunc
	tasks   sync.WaitGroup

	ready  frame // Messages that are read.
	index  int   // Of the next one.
	handed *Message
	end    error // What the caller was told last.
}

// NewConsumer registers a consumer, if it is missing, and begins to read.
func (c *Client) NewConsumer(ctx context.Context, config ConsumerConfig) (*Consumer, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	request := &pb.RegisterConsumerRequest{Topic: config.Topic, ConsumerId: config.ID, IfMissing: true}
	if config.Start != nil {
		config.Start(request)
	}
	if _, err := call(ctx, c.Consumers.RegisterConsumer, request); err != nil {
		return nil, err
	}
	log := c.logger.With("topic", config.Topic, "consumer", config.ID)
	consumer := &Consumer{client: c, config: config, frames: make(chan frame, 1), commits: newCommits(config, log)}
	ctx, consumer.stop = context.WithCancel(context.Background())
	r := &reader{Consumer: consumer, log: log}
	consumer.tasks.Go(func() { r.run(ctx) })
	consumer.tasks.Go(func() { consumer.commits.run(ctx) })
	return consumer, nil
}

// Messages yields message after message. The loop ends when the consumer has caught up, if that was
// asked for, or after an error. A message at which the caller leaves the loop is not finished, unless
// it was committed: it comes again.
func (c *Consumer) Messages(ctx context.Context) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		for {
			message, err := c.Next(ctx)
			if err == io.EOF {
				return
			}
			if !yield(message, err) || err != nil {
				c.putBack()
				return
			}
		}
	}
}

// Next waits for the next message. When the consumer has caught up, if that was asked for, it returns
// io.EOF. Unless commits are left to the caller, everything is committed by then, and the consumer is
// closed.
func (c *Consumer) Next(ctx context.Context) (*Message, error) {
	if c.handed != nil && !c.config.ManualCommit {
		_ = c.Commit(c.handed) // The end of the stream, or Close, says whether it matters.
	}
	c.handed = nil
	for c.end == nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c.handed = c.pop(); c.handed != nil {
			return c.handed, nil
		}
		select {
		case received, isOpen := <-c.frames:
			c.end = c.receive(ctx, received, isOpen)
		case <-ctx.Done():
		}
	}
	return nil, c.end
}

// receive takes a frame. It returns an error if no further messages come.
func (c *Consumer) receive(ctx context.Context, received frame, isOpen bool) error {
	if !isOpen {
		return c.err
	}
	c.ready, c.index = received, 0
	if !received.caughtUp {
		return nil
	}
	if !c.config.ManualCommit {
		if err := c.Close(ctx); err != nil {
			return err
		}
	}
	return io.EOF
}

// pop returns the next message that is read, if there is one.
func (c *Consumer) pop() *Message {
	if c.index == len(c.ready.messages) || c.ready.seeks != c.seeks.Load() {
		return nil
	}
	c.index++
	return &Message{c.ready.messages[c.index-1], c.ready.epoch, c.ready.seeks}
}

// putBack has a message come again that the caller did not finish.
func (c *Consumer) putBack() {
	if c.handed != nil && !c.config.ManualCommit && !c.commits.isFinished(c.handed) {
		c.index--
	}
	c.handed = nil
}

// Commit marks a message, and all before it, as finished. They are committed in the background. It has
// no effect on a message from before a seek. An error says why the broker refuses commits for now; they
// are tried again.
func (c *Consumer) Commit(message *Message) error {
	c.commits.finish(message.seeks, message.GetOffset()+1)
	return c.commits.refusal()
}

// Close waits until what is finished is committed, for at most 10 s, and frees the lease. An error
// says why that failed, and means that finished messages will come again.
func (c *Consumer) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := c.commitAll(ctx)
	c.stop()
	c.tasks.Wait()
	c.end = cmp.Or(c.end, ErrClosed)
	return err
}

func (c *Consumer) commitAll(ctx context.Context) error {
	for {
		pause := c.commits.commit(ctx) // If this fails, it is tried again, over another stream if need be.
		if !c.commits.arePending() {
			return nil
		}
		if err := c.commits.refusal(); err != nil {
			return err
		}
		if err := c.discard(ctx, max(pause, firstPause)); err != nil {
			return notCommitted(cmp.Or(c.commits.lastFailure(), err))
		}
	}
}

// discard receives frames for a while, since nobody reads them any more, and the stream must go on. An
// error means that none will come, or that the context has ended.
func (c *Consumer) discard(ctx context.Context, pause time.Duration) error {
	end := time.After(pause)
	for {
		select {
		case _, isOpen := <-c.frames:
			if !isOpen {
				return c.err
			}
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func notCommitted(reason error) error {
	return newError(codes.Aborted, "NOT_COMMITTED", fmt.Sprint("finished messages will come again, as they could not be committed: ", reason))
}
