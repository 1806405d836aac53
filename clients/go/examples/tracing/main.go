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
	"io"
	"log"
	"os"
	"time"

	"github.com/trunkline/trunkline/clients/go/examples/tracing/spans"
	trunkline "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
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
	target := cmp.Or(os.Getenv("TRUNKLINE_TARGET"), "127.0.0.1:50051")
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := register(ctx, conn, topic, producer, consumer); err != nil {
		return err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	defer func() { err = errors.Join(err, shutDown(provider)) }()
	tracer := provider.Tracer("github.com/trunkline/trunkline/clients/go/examples/tracing")

	if err := takeOrder(ctx, &spans.Sender{
		Tracer: tracer, Service: trunkline.NewProducerServiceClient(conn), Topic: topic, ID: producer,
	}); err != nil {
		return err
	}
	return consume(ctx, trunkline.NewConsumerServiceClient(conn), &spans.Processor{
		Tracer: tracer, Topic: topic, ID: consumer,
	})
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

func takeOrder(ctx context.Context, sender *spans.Sender) error {
	ctx, span := sender.Tracer.Start(ctx, "take order")
	defer span.End()
	offset, err := sender.Send(ctx, &trunkline.NewMessage{Key: []byte("table 7"), Payload: []byte("one coffee")})
	if err != nil {
		return err
	}
	fmt.Println("published at offset", offset)
	return nil
}

func consume(ctx context.Context, service trunkline.ConsumerServiceClient, processor *spans.Processor) error {
	frames, err := service.Consume(ctx, &trunkline.ConsumeRequest{
		Topic: processor.Topic, ConsumerId: processor.ID, Stop: &trunkline.ConsumeRequest_UntilCaughtUp{UntilCaughtUp: true},
	})
	if err != nil {
		return err
	}
	for {
		frame, err := frames.Recv()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		for _, message := range frame.GetBatch().GetMessages() {
			if err := processor.Process(ctx, message, printMessage); err != nil {
				return err
			}
		}
	}
}

func printMessage(_ context.Context, message *trunkline.Message) error {
	_, err := fmt.Printf("consumed %d: %s\n", message.GetOffset(), message.GetPayload())
	return err
}

// register creates what does not exist yet.
func register(ctx context.Context, conn *grpc.ClientConn, topic, producer, consumer string) error {
	_, err := trunkline.NewTopicServiceClient(conn).CreateTopic(ctx, &trunkline.CreateTopicRequest{Topic: topic})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return err
	}
	_, err = trunkline.NewProducerServiceClient(conn).RegisterProducer(ctx, &trunkline.RegisterProducerRequest{Topic: topic, ProducerId: producer})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return err
	}
	_, err = trunkline.NewConsumerServiceClient(conn).RegisterConsumer(ctx, &trunkline.RegisterConsumerRequest{Topic: topic, ConsumerId: consumer})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return err
	}
	return nil
}
