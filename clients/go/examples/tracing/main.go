// Tracing publishes a message in a trace, and processes the messages that the consumer has not
// received yet in spans that link to their senders. It sends the spans by OTLP to
// OTEL_EXPORTER_OTLP_ENDPOINT, or prints them if that is not set.
//
//	go run ./examples/tracing TOPIC PRODUCER CONSUMER
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go"
	"github.com/trunkline/trunkline/clients/go/examples/tracing/spans"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: tracing TOPIC PRODUCER CONSUMER")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(topic, producer, consumer string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := trunkline.Dial(cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051"))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.EnsureTopic(ctx, topic); err != nil {
		return err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	defer func() { err = errors.Join(err, shutDown(provider)) }()
	tracer := provider.Tracer("github.com/trunkline/trunkline/clients/go/examples/tracing")

	if err := takeOrder(ctx, tracer, client, trunkline.ProducerConfig{Topic: topic, ID: producer}); err != nil {
		return err
	}
	return consume(ctx, tracer, client, trunkline.ConsumerConfig{Topic: topic, ID: consumer, UntilCaughtUp: true})
}

func newExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		return otlptracegrpc.New(ctx)
	}
	return stdouttrace.New(stdouttrace.WithPrettyPrint())
}

// shutDown exports the last spans, also if the calls took all the time that they had.
func shutDown(provider *sdktrace.TracerProvider) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("export the last spans: %w", err)
	}
	return nil
}

func takeOrder(ctx context.Context, tracer trace.Tracer, client *trunkline.Client, config trunkline.ProducerConfig) error {
	producer, err := client.NewProducer(ctx, config)
	if err != nil {
		return err
	}
	defer producer.Close(ctx)
	ctx, span := tracer.Start(ctx, "take order")
	defer span.End()
	sender := spans.Sender{Tracer: tracer, Producer: producer, Topic: config.Topic}
	offset, err := sender.Send(ctx, &trunkline.NewMessage{Key: []byte("table 7"), Payload: []byte("one coffee")})
	if err != nil {
		return err
	}
	fmt.Println("published at offset", offset)
	return nil
}

func consume(ctx context.Context, tracer trace.Tracer, client *trunkline.Client, config trunkline.ConsumerConfig) error {
	consumer, err := client.NewConsumer(ctx, config)
	if err != nil {
		return err
	}
	defer consumer.Close(ctx)
	processor := spans.Processor{Tracer: tracer, Topic: config.Topic, ID: config.ID}
	for message, err := range consumer.Messages(ctx) {
		if err != nil {
			return err
		}
		if err := processor.Process(ctx, message, printMessage); err != nil {
			return err
		}
	}
	return nil
}

func printMessage(_ context.Context, message *trunkline.Message) error {
	_, err := fmt.Printf("consumed %d: %s\n", message.Offset, message.Payload)
	return err
}
