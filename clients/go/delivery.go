package trunkline

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
)

// maxInFlight is how many requests may be unanswered. The broker recognises at least the last eight
// that it accepted from a producer, when they are repeated after a break.
const maxInFlight = 8

// A delivery sends a producer's batches. After a break it sends those again that were not answered,
// with the sequences that they had.
type delivery struct {
	*Producer
	epoch      int64
	sequence   int64 // The sequence of the next message.
	unanswered []*batch
	failures   int       // Since a message was last stored.
	progress   time.Time // When a message was last stored.
}

func (d *delivery) run(ctx context.Context) {
	defer close(d.stopped)
	for ctx.Err() == nil {
		if d.oldest() == nil {
			select {
			case <-d.changed:
			case <-ctx.Done():
			}
			continue
		}
		err := d.deliver(ctx)
		if ctx.Err() != nil {
			break
		}
		pause, ok := retryPause(err, d.failures)
		if !ok {
			d.fail(err)
			return
		}
		for _, b := range d.unanswered {
			b.wasLost = b.wasSent
		}
		d.failures++
		if oldest := d.oldest(); oldest != nil {
			left := d.config.RetryFor - min(time.Since(oldest.began), time.Since(d.progress))
			if left <= 0 {
				d.giveUp(err)
				return
			}
			pause = min(pause, left) // However long it would be, a last try is made in time.
		}
		d.client.logger.Warn("a producer lost its stream", "topic", d.config.Topic, "producer", d.config.ID, "error", err)
		sleep(ctx, pause)
	}
	d.end(ErrClosed, outcomeUnknown("the producer was closed before the broker answered", nil), wasSent)
}

// deliver sends batches over one stream, until it breaks.
func (d *delivery) deliver(ctx context.Context) error {
	patience := min(answerTimeout, d.config.RetryFor)
	a, err := d.client.attempt(ctx, patience)
	if err != nil {
		return err
	}
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer a.end()
	stream, err := pb.NewProducerServiceClient(a.conn).PublishStream(a.ctx)
	if err != nil {
		return a.reason(err)
	}
	answers := make(chan *pb.PublishStreamResponse)
	receiver.Go(func() { receive(a, stream, answers) })
	sent := 0
	for {
		lingered := d.takeDue()
		if sent < len(d.unanswered) {
			a.silence.Reset(patience)
			if err := d.send(stream, d.unanswered[sent]); err != nil {
				return a.reason(err)
			}
			sent++
			continue
		}
		select {
		case answer := <-answers:
			if err := d.record(answer); err != nil {
				return err
			}
			if sent--; sent > 0 {
				a.silence.Reset(patience)
			} else {
				a.silence.Stop()
			}
		case <-lingered:
		case <-d.changed:
		case <-a.ctx.Done():
			return context.Cause(a.ctx)
		}
	}
}

// takeDue takes the next batch, if there is one to be sent. It may return when to ask again.
func (d *delivery) takeDue() <-chan time.Time {
	if len(d.unanswered) == maxInFlight {
		return nil
	}
	due, lingered := d.take(len(d.unanswered) == 0)
	if due != nil {
		due.sequence = d.sequence
		d.sequence += int64(len(due.messages))
		d.unanswered = append(d.unanswered, due)
	}
	return lingered
}

func (d *delivery) send(stream pb.ProducerService_PublishStreamClient, b *batch) error {
	b.wasSent = true
	err := stream.Send(&pb.PublishStreamRequest{
		Topic: d.config.Topic, ProducerId: d.config.ID, ProducerEpoch: d.epoch, Sequence: &b.sequence, Messages: b.messages,
	})
	if err == io.EOF {
		return nil // The stream is broken, and the receiver learns why.
	}
	return err
}

// receive passes answers on, until the stream breaks.
func receive(a *attempt, stream pb.ProducerService_PublishStreamClient, answers chan<- *pb.PublishStreamResponse) {
	for {
		answer, err := stream.Recv()
		if err != nil {
			a.cancel(a.reason(err))
			return
		}
		select {
		case answers <- answer:
		case <-a.ctx.Done():
			return
		}
	}
}

// record records the answer to the oldest unanswered batch.
func (d *delivery) record(answer *pb.PublishStreamResponse) error {
	if refusal := answer.GetRefusal(); refusal != nil {
		// The batches behind it leave a gap now. If it may be repeated, so are they.
		return fromRefusal(refusal)
	}
	if answer.GetReceipt() == nil || len(d.unanswered) == 0 {
		return newError(codes.Internal, "", "the broker gave an unexpected answer")
	}
	d.settle(d.unanswered[0], answer.GetReceipt().GetFirstOffset(), nil)
	d.unanswered = d.unanswered[1:]
	d.failures, d.progress = 0, time.Now()
	return nil
}

// oldest returns the batch that has waited longest; nil if there is none.
func (d *delivery) oldest() *batch {
	if len(d.unanswered) > 0 {
		return d.unanswered[0]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) > 0 {
		return d.queue[0]
	}
	return nil
}

// fail ends the producer after an error that is final. It is the answer to what was first sent on the
// stream that it ended, since a broker answers what it accepts before it ends a stream. But it says
// nothing about what was sent on an earlier stream, even if it refuses the repetition.
func (d *delivery) fail(err error) {
	text := fmt.Sprintf("not answered before the producer ended: %v", err)
	d.end(err, outcomeUnknown(text, err), wasLost)
}

// giveUp ends the producer since no broker has answered for too long.
func (d *delivery) giveUp(err error) {
	text := fmt.Sprintf("no broker answered for %v", d.config.RetryFor)
	unknown := outcomeUnknown(fmt.Sprintf("%s, so that messages may or may not be stored: %v", text, err), err)
	lost := newError(codes.Unavailable, "", fmt.Sprintf("%s: %v", text, err))
	d.end(lost, unknown, wasSent)
}

// end ends the producer. Messages without an answer that may be stored fail with the second error, and
// the others with the first one.
func (d *delivery) end(err, unknown error, mayBeStored func(*batch) bool) {
	d.mu.Lock()
	waiting := append(d.unanswered, d.queue...)
	d.queue = nil
	d.err = err
	if slices.ContainsFunc(waiting, mayBeStored) {
		d.unknown = unknown
	}
	d.mu.Unlock()
	for _, b := range waiting {
		if mayBeStored(b) {
			d.settle(b, 0, unknown)
		} else {
			d.settle(b, 0, err)
		}
	}
}
