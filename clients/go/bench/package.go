package main

import (
	"context"
	"fmt"

	trunkline "github.com/trunkline/trunkline/clients/go"
)

func publish(ctx context.Context, client *trunkline.Client, topic string, payload []byte, count int) error {
	producer, err := client.NewProducer(ctx, trunkline.ProducerConfig{Topic: topic, ID: "package"})
	if err != nil {
		return err
	}
	var last trunkline.Receipt
	for range count {
		if last, err = producer.Publish(ctx, &trunkline.NewMessage{Payload: payload}); err != nil {
			return err
		}
	}
	if err := producer.Close(ctx); err != nil {
		return err
	}
	offset, err := last.Offset(ctx)
	if err == nil && offset != int64(count-1) {
		return fmt.Errorf("the last message is at %d, want %d", offset, count-1)
	}
	return err
}

func consume(ctx context.Context, client *trunkline.Client, topic string) (int, error) {
	consumer, err := client.NewConsumer(ctx, trunkline.ConsumerConfig{Topic: topic, ID: "package", UntilCaughtUp: true})
	if err != nil {
		return 0, err
	}
	consumed := 0
	for message, err := range consumer.Messages(ctx) {
		if err != nil {
			return consumed, err
		}
		if len(message.Payload) == *size {
			consumed++
		}
	}
	return consumed, nil
}
