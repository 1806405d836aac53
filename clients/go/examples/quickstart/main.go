// Quickstart publishes a message and prints every message that the consumer has not received yet.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"

	trunkline "github.com/trunkline/trunkline/clients/go"
)

func main() {
	ctx := context.Background()
	client, err := trunkline.Dial(cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051"))
	check(err)
	check(client.EnsureTopic(ctx, "orders"))

	producer, err := client.NewProducer(ctx, trunkline.ProducerConfig{Topic: "orders", ID: "shop"})
	check(err)
	receipt, err := producer.Publish(ctx, &trunkline.NewMessage{Key: []byte("table 7"), Payload: []byte("one coffee")})
	check(err)
	offset, err := receipt.Offset(ctx)
	check(err)
	fmt.Println("published at offset", offset)
	check(producer.Close(ctx))

	consumer, err := client.NewConsumer(ctx, trunkline.ConsumerConfig{
		Topic: "orders", ID: "billing", UntilCaughtUp: true, // Without it, the loop waits for new messages for ever.
	})
	check(err)
	for message, err := range consumer.Messages(ctx) {
		check(err)
		fmt.Printf("consumed %d: %s\n", message.Offset, message.Payload)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
