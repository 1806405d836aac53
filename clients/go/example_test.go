package trunkline_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

func ExampleClient_EnsureTopic() {
	ctx := context.Background()
	client, err := trunkline.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	err = client.EnsureTopic(ctx, "orders", func(request *pb.CreateTopicRequest) {
		request.Retention = &pb.Retention{MaxAge: durationpb.New(24 * time.Hour)}
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleWithToken() {
	authority, err := os.ReadFile("ca.pem")
	if err != nil {
		log.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(authority)
	client, err := trunkline.Dial("https://broker.example:50051",
		trunkline.WithToken(os.Getenv("TRUNKLINE_TOKEN")),
		trunkline.WithTLS(&tls.Config{RootCAs: authorities}), // Only if the system does not trust the authority.
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleProducer() {
	ctx := context.Background()
	client, err := trunkline.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	producer, err := client.NewProducer(ctx, trunkline.ProducerConfig{Topic: "orders", ID: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	var receipts []trunkline.Receipt
	for _, order := range []string{"one coffee", "two teas"} {
		receipt, err := producer.Publish(ctx, &trunkline.NewMessage{Payload: []byte(order)})
		if err != nil {
			log.Fatal(err)
		}
		receipts = append(receipts, receipt)
	}
	for _, receipt := range receipts {
		offset, err := receipt.Offset(ctx) // Waits until the message is on disk.
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("stored at", offset)
	}
	if err := producer.Close(ctx); err != nil {
		log.Fatal(err)
	}
}

func ExampleConsumer_Commit() {
	ctx := context.Background()
	client, err := trunkline.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	consumer, err := client.NewConsumer(ctx, trunkline.ConsumerConfig{Topic: "orders", ID: "billing", ManualCommit: true})
	if err != nil {
		log.Fatal(err)
	}
	var invoices []string
	for message, err := range consumer.Messages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if invoices = append(invoices, string(message.Payload)); len(invoices) == 100 {
			fmt.Println("billed", len(invoices))
			consumer.Commit(message) // With it, all before it are finished.
			break
		}
	}
	if err := consumer.Close(ctx); err != nil { // Waits for the commit.
		log.Fatal(err)
	}
}

func ExampleError() {
	client, err := trunkline.Dial("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.NewProducer(context.Background(), trunkline.ProducerConfig{Topic: "orders", ID: "shop"})
	var refusal *trunkline.Error
	if errors.As(err, &refusal) && refusal.Reason == "TOPIC_NOT_FOUND" {
		fmt.Println("there is no topic", refusal.Metadata["topic"])
	}
}
