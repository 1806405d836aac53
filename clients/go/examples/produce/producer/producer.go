// Package producer publishes batches of messages through one stream, and stores each batch once,
// however often the stream breaks.
package producer

import (
	"context"
	"io"

	"github.com/trunkline/trunkline/clients/go/examples/retry"
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxInFlight is the maximum number of unanswered requests. The broker remembers at least the last
// eight that it accepted from a producer, and recognises them when they are repeated.
const maxInFlight = 8

// A Producer numbers the messages that it publishes to a topic.
type Producer struct {
	service    trunkline.ProducerServiceClient
	topic, id  string
	epoch      int64
	sequence   int64 // The sequence of the next message.
	unanswered []*trunkline.PublishStreamRequest
}

// Register registers a producer, or continues the sequence of one that is already registered. It
// fences, because an older instance that still runs would give the same sequences to other messages.
func Register(ctx context.Context, service trunkline.ProducerServiceClient, topic, id string) (*Producer, error) {
	answer, err := service.RegisterProducer(ctx, &trunkline.RegisterProducerRequest{
		Topic:      topic,
		ProducerId: id,
		Fence:      true,
	})
	if err != nil {
		return nil, err
	}
	registered := answer.GetProducer()
	p := &Producer{service: service, topic: topic, id: id, epoch: registered.GetEpoch()}
	if registered.LastSequence != nil {
		p.sequence = registered.GetLastSequence() + 1
	}
	return p, nil
}

// Publish publishes batches until the channel is closed and all are on disk; it calls stored for each
// one. An error is final: the context's, or the status with which a batch was refused.
func (p *Producer) Publish(ctx context.Context, batches <-chan []*trunkline.NewMessage, stored func(*trunkline.PublishReceipt)) error {
	var backoff retry.Backoff
	for {
		err := p.publish(ctx, batches, func(receipt *trunkline.PublishReceipt) {
			backoff.Reset()
			stored(receipt)
		})
		if status.Code(err) != codes.Unavailable {
			return err
		}
		if err := backoff.Wait(ctx, err); err != nil {
			return err
		}
	}
}

// publish uses one stream, and first resends what the previous stream left unanswered.
func (p *Producer) publish(ctx context.Context, batches <-chan []*trunkline.NewMessage, stored func(*trunkline.PublishReceipt)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.service.PublishStream(ctx)
	if err != nil {
		return err
	}
	for _, request := range p.unanswered {
		if err := send(stream, request); err != nil {
			return err
		}
	}
	answers := receive(stream)
	for batches != nil || len(p.unanswered) > 0 {
		next := batches
		if len(p.unanswered) == maxInFlight {
			next = nil
		}
		select {
		case messages, more := <-next:
			if !more {
				batches = nil
				continue
			}
			request := p.number(messages)
			p.unanswered = append(p.unanswered, request)
			if err := send(stream, request); err != nil {
				return err
			}
		case answer := <-answers:
			if answer.err != nil {
				return answer.err
			}
			p.unanswered = p.unanswered[1:]
			stored(answer.receipt)
		}
	}
	return stream.CloseSend()
}

func (p *Producer) number(messages []*trunkline.NewMessage) *trunkline.PublishStreamRequest {
	first := p.sequence
	p.sequence += int64(len(messages))
	return &trunkline.PublishStreamRequest{
		Topic:         p.topic,
		ProducerId:    p.id,
		ProducerEpoch: p.epoch,
		Sequence:      &first,
		Messages:      messages,
	}
}

func send(stream trunkline.ProducerService_PublishStreamClient, request *trunkline.PublishStreamRequest) error {
	err := stream.Send(request)
	if err == io.EOF {
		return nil // The stream is broken: the next answer says why.
	}
	return err
}
