// Consume prints a topic's messages as they come, until it is interrupted.
//
//	go run ./examples/consume TOPIC CONSUMER
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	trunkline "github.com/trunkline/trunkline/clients/go"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: consume TOPIC CONSUMER")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := consume(ctx, trunkline.ConsumerConfig{Topic: os.Args[1], ID: os.Args[2]})
	if err != nil {
		log.Fatal(err)
	}
}

func consume(ctx context.Context, config trunkline.ConsumerConfig) (err error) {
	client, err := trunkline.Dial(cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051"))
	if err != nil {
		return err
	}
	defer client.Close()
	consumer, err := client.NewConsumer(ctx, config)
	if err != nil {
		return err
	}
	// Commits what was printed, also when the program is interrupted.
	defer func() { err = errors.Join(err, consumer.Close(context.WithoutCancel(ctx))) }()
	for message, err := range consumer.Messages(ctx) {
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		fmt.Printf("%d %s\n", message.Offset, message.Payload)
	}
	return nil
}
