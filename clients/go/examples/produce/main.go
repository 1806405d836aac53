// Produce publishes the lines of standard input, and creates the topic if it does not exist.
//
//	go run ./examples/produce TOPIC PRODUCER
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/trunkline/trunkline/clients/go/examples/produce/producer"
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: produce TOPIC PRODUCER")
	}
	if err := produce(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func produce(topic, id string) error {
	target := cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051")
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A publish stream has no deadline: keepalive ends it when the broker has vanished.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return err
	}
	defer conn.Close()
	registered, err := register(conn, topic, id)
	if err != nil {
		return err
	}
	batches := make(chan []*trunkline.NewMessage)
	var readError error
	go func() {
		defer close(batches)
		readError = readLines(os.Stdin, batches)
	}()
	err = registered.Publish(context.Background(), batches, func(receipt *trunkline.PublishReceipt) {
		fmt.Printf("stored %d at %d\n", receipt.GetCount(), receipt.GetFirstOffset())
	})
	if err != nil {
		return err
	}
	return readError
}

func register(conn *grpc.ClientConn, topic, id string) (*producer.Producer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := trunkline.NewTopicServiceClient(conn).CreateTopic(ctx, &trunkline.CreateTopicRequest{Topic: topic})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return nil, err
	}
	return producer.Register(ctx, trunkline.NewProducerServiceClient(conn), topic, id)
}

// readLines makes a batch of the lines that can be read at once: a file goes in large batches, and
// typed input line by line.
func readLines(input io.Reader, batches chan<- []*trunkline.NewMessage) error {
	const maxLines, maxBytes = 1000, 1 << 20
	reader := bufio.NewReaderSize(input, 64<<10)
	var batch []*trunkline.NewMessage
	size := 0
	for {
		line, err := reader.ReadBytes('\n')
		if len(line) > 0 {
			batch = append(batch, &trunkline.NewMessage{Payload: bytes.TrimSuffix(line, []byte("\n"))})
			size += len(line)
		}
		full := len(batch) == maxLines || size >= maxBytes
		if len(batch) > 0 && (full || reader.Buffered() == 0 || err != nil) {
			batches <- batch
			batch, size = nil, 0
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
