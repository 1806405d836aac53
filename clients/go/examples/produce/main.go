// Produce publishes the lines of standard input, and creates the topic if it is missing.
//
//	go run ./examples/produce TOPIC PRODUCER
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	trunkline "github.com/trunkline/trunkline/clients/go"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: produce TOPIC PRODUCER")
	}
	if err := produce(context.Background(), trunkline.ProducerConfig{Topic: os.Args[1], ID: os.Args[2]}); err != nil {
		log.Fatal(err)
	}
}

func produce(ctx context.Context, config trunkline.ProducerConfig) error {
	client, err := trunkline.Dial(cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051"))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.EnsureTopic(ctx, config.Topic); err != nil {
		return err
	}
	producer, err := client.NewProducer(ctx, config)
	if err != nil {
		return err
	}
	receipts := make(chan trunkline.Receipt, 10_000)
	printed := make(chan error)
	go func() { printed <- printOffsets(ctx, receipts) }()
	err = publishLines(ctx, producer, os.Stdin, receipts)
	close(receipts)
	return errors.Join(err, producer.Close(ctx), <-printed)
}

func publishLines(ctx context.Context, producer *trunkline.Producer, input io.Reader, receipts chan<- trunkline.Receipt) error {
	lines := bufio.NewReader(input)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			receipt, err := producer.Publish(ctx, &trunkline.NewMessage{Payload: bytes.TrimSuffix(line, []byte("\n"))})
			if err != nil {
				return err
			}
			receipts <- receipt
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func printOffsets(ctx context.Context, receipts <-chan trunkline.Receipt) (failure error) {
	for receipt := range receipts {
		offset, err := receipt.Offset(ctx)
		if err != nil {
			failure = err // All further messages fail as well.
			continue
		}
		fmt.Println("stored at", offset)
	}
	return failure
}
