package main

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitPrefetch is how many unacknowledged messages the consumer may have.
const rabbitPrefetch = 2_000

// rabbitPeer uses a quorum queue.
type rabbitPeer struct {
	url string
	// connections are shared by the unary callers, which have a channel each.
	connections []*amqp.Connection
}

func openRabbit(target, _ string) (peer, error) {
	r := &rabbitPeer{url: "amqp://guest:guest@" + target + "/"}
	for range 4 {
		connection, err := amqp.Dial(r.url)
		if err != nil {
			r.close()
			return nil, err
		}
		r.connections = append(r.connections, connection)
	}
	return r, nil
}

func (r *rabbitPeer) close() {
	for _, connection := range r.connections {
		connection.Close()
	}
}

func (r *rabbitPeer) create(_ context.Context, topic string) error {
	channel, err := r.connections[0].Channel()
	if err != nil {
		return err
	}
	defer channel.Close()
	_, err = channel.QueueDeclare(topic, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	return err
}

func (r *rabbitPeer) shape(workload string) shape {
	// The protocol has no batches: each command holds one message, and many are in flight.
	return asynchronousShape(workload, shape{publishers: 4, batch: 100, inFlight: 20})
}

func (r *rabbitPeer) publisher(_ context.Context, topic, workload string, number int) (publisher, error) {
	p := &rabbitPublisher{topic: topic, sent: make(chan rabbitSent, 1_024)}
	connection := r.connections[number%len(r.connections)]
	if workload != "unary" {
		own, err := amqp.Dial(r.url)
		if err != nil {
			return nil, err
		}
		connection, p.own = own, own
	}
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	if err := channel.Confirm(false); err != nil {
		return nil, err
	}
	p.channel = channel
	p.closed = channel.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		for sent := range p.sent {
			sent.done(p.wait(sent.confirms))
		}
	}()
	return p, nil
}

type rabbitPublisher struct {
	topic   string
	own     *amqp.Connection
	channel *amqp.Channel
	closed  chan *amqp.Error
	sent    chan rabbitSent
}

type rabbitSent struct {
	confirms []*amqp.DeferredConfirmation
	done     func(error)
}

func (r *rabbitPublisher) send(ctx context.Context, payloads [][]byte, done func(error)) {
	confirms := make([]*amqp.DeferredConfirmation, 0, len(payloads))
	for _, payload := range payloads {
		message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: payload}
		confirm, err := r.channel.PublishWithDeferredConfirmWithContext(ctx, "", r.topic, false, false, message)
		if err != nil {
			done(err)
			return
		}
		confirms = append(confirms, confirm)
	}
	r.sent <- rabbitSent{confirms, done}
}

func (r *rabbitPublisher) wait(confirms []*amqp.DeferredConfirmation) error {
	for _, confirm := range confirms {
		select {
		case <-confirm.Done():
			if !confirm.Acked() {
				return errors.New("the server refused a message")
			}
		case err := <-r.closed:
			return fmt.Errorf("the channel was closed: %w", err)
		}
	}
	return nil
}

func (r *rabbitPublisher) close() error {
	close(r.sent)
	if r.own != nil {
		return r.own.Close()
	}
	return r.channel.Close()
}

func (r *rabbitPeer) consume(ctx context.Context, topic string, got func([]byte)) error {
	connection, err := amqp.Dial(r.url)
	if err != nil {
		return err
	}
	defer connection.Close()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	if err := channel.Qos(rabbitPrefetch, 0, false); err != nil {
		return err
	}
	deliveries, err := channel.Consume(topic, "consumer", false, false, false, false, nil)
	if err != nil {
		return err
	}
	// One acknowledgement covers all messages before it.
	const ackEvery = rabbitPrefetch / 4
	var last amqp.Delivery
	unacknowledged := 0
	acknowledge := func() error {
		if unacknowledged == 0 {
			return nil
		}
		unacknowledged = 0
		return last.Ack(true)
	}
	for {
		select {
		case delivery, open := <-deliveries:
			if !open {
				return errors.New("the server ended the deliveries")
			}
			got(delivery.Body)
			last = delivery
			unacknowledged++
			if unacknowledged == ackEvery {
				if err := acknowledge(); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			// The channel closes in order, after the acknowledgement.
			return errors.Join(acknowledge(), channel.Close())
		}
	}
}
