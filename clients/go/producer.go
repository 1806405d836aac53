package trunkline

import (
	"cmp"
	"context"
	"sync"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"golang.org/x/sync/semaphore"
)

// overhead is what a message, and each of its headers, counts for in the buffer besides its bytes.
const overhead = 100

// A NewMessage is a message to publish. It must not be changed until it is stored.
type NewMessage = pb.NewMessage

// A Producer publishes to a topic. Goroutines may share it. It ends with the first refusal of the
// broker's, or when no broker answers for too long: then all messages without an answer fail.
type Producer struct {
	client  *Client
	config  ProducerConfig
	room    *semaphore.Weighted // The bytes for which the buffer has room.
	changed chan struct{}       // Wakes the delivery: a batch may be due.
	stop    context.CancelFunc
	stopped chan struct{}

	mu       sync.Mutex
	queue    []*batch // To be sent. The last one gathers messages until it is full.
	newest   *batch
	flushing bool  // The queue is sent without lingering.
	err      error // Why no more messages are accepted. Those that were not sent fail with it.
	unknown  error // With what those failed that may be stored, if there were any.
}

// NewProducer registers a producer, if it is missing, and begins a new epoch: what older instances of
// the same id publish from now on is refused (PRODUCER_FENCED).
func (c *Client) NewProducer(ctx context.Context, config ProducerConfig) (*Producer, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	request := &pb.RegisterProducerRequest{Topic: config.Topic, ProducerId: config.ID, Fence: true}
	answer, err := call(ctx, c.Producers.RegisterProducer, request)
	if err != nil {
		return nil, err
	}
	p := &Producer{
		client:  c,
		config:  config,
		room:    semaphore.NewWeighted(int64(config.MaxBufferedBytes)),
		changed: make(chan struct{}, 1),
		stopped: make(chan struct{}),
	}
	d := &delivery{Producer: p, epoch: answer.GetProducer().GetEpoch(), sequence: answer.GetProducer().GetNextSequence()}
	ctx, p.stop = context.WithCancel(context.Background())
	go d.run(ctx)
	return p, nil
}

// Publish takes a message, once the buffer has room for it, and sends it in the background. Messages
// that a goroutine publishes are stored in their order. A message over a limit fails alone, at once.
func (p *Producer) Publish(ctx context.Context, message *NewMessage) (Receipt, error) {
	bytes, err := messageSize(message)
	if err != nil {
		return Receipt{}, err
	}
	cost := int64(bytes + overhead*(1+len(message.GetHeaders())))
	if err := p.room.Acquire(ctx, cost); err != nil {
		return Receipt{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		p.room.Release(cost)
		return Receipt{}, p.err
	}
	b := p.open(bytes)
	b.messages = append(b.messages, message)
	b.bytes += bytes
	b.cost += cost
	if p.isFull(b) {
		wake(p.changed)
	}
	return Receipt{b, len(b.messages) - 1}, nil
}

// open returns the batch that gets the next message.
func (p *Producer) open(bytes int) *batch {
	if len(p.queue) > 0 {
		last := p.queue[len(p.queue)-1]
		if !p.isFull(last) && last.bytes+bytes <= p.config.MaxBatchBytes {
			return last
		}
	}
	p.newest = &batch{began: time.Now(), done: make(chan struct{})}
	p.queue = append(p.queue, p.newest)
	wake(p.changed)
	return p.newest
}

func (p *Producer) isFull(b *batch) bool { return len(b.messages) == p.config.MaxBatchMessages }

// take takes the next batch from the queue, if it is due. Otherwise it returns when to ask again, if
// not only after a change.
func (p *Producer) take(isIdle bool) (*batch, <-chan time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil, nil
	}
	next := p.queue[0]
	mayLinger := len(p.queue) == 1 && !p.isFull(next) && !p.flushing && !isIdle
	if left := p.config.Linger - time.Since(next.began); mayLinger && left > 0 {
		return nil, time.After(left)
	}
	p.queue = p.queue[1:]
	p.flushing = p.flushing && len(p.queue) > 0
	return next, nil
}

// settle records the answer to a batch, and makes room.
func (p *Producer) settle(b *batch, first int64, err error) {
	b.first, b.err, b.messages = first, err, nil
	close(b.done)
	p.room.Release(b.cost)
}

// Flush sends what was published without lingering, and waits until it is answered. It returns why
// messages were not stored: OUTCOME_UNKNOWN if any of them may be.
func (p *Producer) Flush(ctx context.Context) error {
	p.mu.Lock()
	newest := p.newest
	p.flushing = len(p.queue) > 0
	p.mu.Unlock()
	if newest == nil {
		return nil
	}
	wake(p.changed)
	err := newest.wait(ctx)
	if err == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return cmp.Or(p.unknown, err)
}

// Close flushes, and ends the producer. If the context ends first, messages without an answer fail:
// with OUTCOME_UNKNOWN if they were sent, so that they may or may not be stored, or else with
// [ErrClosed].
func (p *Producer) Close(ctx context.Context) error {
	err := p.Flush(ctx)
	p.stop()
	<-p.stopped
	return err
}
