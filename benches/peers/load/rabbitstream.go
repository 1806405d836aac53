package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/amqp"
	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/message"
	"github.com/rabbitmq/rabbitmq-stream-go-client/pkg/stream"
)

// rabbitSubEntry is how many messages of a batch make one entry of the stream. They are not compressed,
// because the client is slower with every compression.
const rabbitSubEntry = 100

type rabbitStreamPeer struct {
	environment *stream.Environment
}

func openRabbitStream(target, _ string) (peer, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	environment, err := stream.NewEnvironment(stream.NewEnvironmentOptions().
		SetHost(host).SetPort(number).SetUser("guest").SetPassword("guest").
		// The client's buffers of 8 KiB stall a loopback connection: use the system's defaults.
		SetReadBuffer(-1).SetWriteBuffer(-1).
		// One connection per producer.
		SetMaxProducersPerClient(1))
	return &rabbitStreamPeer{environment}, err
}

func (r *rabbitStreamPeer) close() { r.environment.Close() }

func (r *rabbitStreamPeer) create(_ context.Context, topic string) error {
	return r.environment.DeclareStream(topic, stream.NewStreamOptions().SetMaxLengthBytes(stream.ByteCapacity{}.GB(20)))
}

func (r *rabbitStreamPeer) shape(workload string) shape {
	return asynchronousShape(workload, shape{publishers: 4, batch: 1_000, inFlight: 16})
}

func (r *rabbitStreamPeer) publisher(_ context.Context, topic, workload string, _ int) (publisher, error) {
	options := stream.NewProducerOptions().SetConfirmationTimeOut(30 * time.Second)
	if workload == "batched" || workload == "both" {
		options.SetSubEntrySize(rabbitSubEntry)
	}
	producer, err := r.environment.NewProducer(topic, options)
	if err != nil {
		return nil, err
	}
	p := &rabbitStreamPublisher{producer: producer}
	go p.answer(producer.NotifyPublishConfirmation())
	return p, nil
}

type rabbitStreamPublisher struct {
	producer *stream.Producer

	mutex   sync.Mutex
	waiting []rabbitPortion
}

// rabbitPortion is a group of messages that were sent together. Confirmations come in order, so they
// are only counted.
type rabbitPortion struct {
	missing int
	done    func(error)
}

func (r *rabbitStreamPublisher) send(_ context.Context, payloads [][]byte, done func(error)) {
	r.mutex.Lock()
	r.waiting = append(r.waiting, rabbitPortion{len(payloads), done})
	r.mutex.Unlock()
	messages := make([]message.StreamMessage, len(payloads))
	for i, payload := range payloads {
		messages[i] = amqp.NewMessage(payload)
	}
	var err error
	if len(messages) == 1 {
		err = r.producer.Send(messages[0])
	} else {
		err = r.producer.BatchSend(messages)
	}
	if err != nil {
		r.complete(len(payloads), fmt.Errorf("send: %w", err))
	}
}

func (r *rabbitStreamPublisher) answer(confirmations stream.ChannelPublishConfirm) {
	for statuses := range confirmations {
		confirmed := 0
		for _, status := range statuses {
			if !status.IsConfirmed() {
				r.complete(1, fmt.Errorf("the server refused a message: %w", status.GetError()))
				continue
			}
			confirmed++
		}
		r.complete(confirmed, nil)
	}
}

// complete removes this many messages from the waiting portions, and completes those that are done.
func (r *rabbitStreamPublisher) complete(count int, err error) {
	r.mutex.Lock()
	var over []func(error)
	for count > 0 && len(r.waiting) > 0 {
		taken := min(count, r.waiting[0].missing)
		r.waiting[0].missing -= taken
		count -= taken
		if r.waiting[0].missing == 0 || err != nil {
			over = append(over, r.waiting[0].done)
			r.waiting = r.waiting[1:]
		}
	}
	r.mutex.Unlock()
	for _, done := range over {
		done(err)
	}
}

func (r *rabbitStreamPublisher) close() error { return r.producer.Close() }

func (r *rabbitStreamPeer) consume(ctx context.Context, topic string, got func([]byte)) error {
	const storeEvery = 10_000
	options := stream.NewConsumerOptions().
		SetConsumerName("consumer").
		SetOffset(stream.OffsetSpecification{}.First()).
		SetAutoCommit(stream.NewAutoCommitStrategy().SetCountBeforeStorage(storeEvery).SetFlushInterval(time.Second)).
		SetInitialCredits(50)
	handle := func(_ stream.ConsumerContext, message *amqp.Message) {
		for _, data := range message.Data {
			got(data)
		}
	}
	consumer, err := r.environment.NewConsumer(topic, handle, options)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return errors.Join(consumer.StoreOffset(), consumer.Close())
	case event := <-consumer.NotifyClose():
		return fmt.Errorf("the server ended the deliveries: %s", event.Reason)
	}
}
