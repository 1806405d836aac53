// Package spans passes a trace through messages: the span that processes a message links to the span
// that sent it.
package spans

import (
	"context"
	"fmt"
	"strconv"

	trunkline "github.com/trunkline/trunkline/clients/go"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A Sender publishes messages to a producer's topic.
type Sender struct {
	Tracer   trace.Tracer
	Producer *trunkline.Producer
	Topic    string
}

// Send publishes a message in a span of its own, and returns its offset.
//
// The message's headers pass the span's context to consumers, and to a broker that traces. If the
// current span is not sampled, there is no span and no header: the broker stores messages without
// headers faster.
func (s *Sender) Send(ctx context.Context, message *trunkline.NewMessage) (int64, error) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return s.publish(ctx, message)
	}
	ctx, span := s.Tracer.Start(ctx, "send "+s.Topic,
		trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attributes("send", s.Topic)...))
	defer span.End()
	if span.SpanContext().IsSampled() { // A sampler may drop this span, and keep the one around it.
		message = withContext(ctx, message)
	}
	offset, err := s.publish(ctx, message)
	if err != nil {
		fail(span, err, code.Code(status.Code(err)).String())
		return 0, err
	}
	span.SetAttributes(attribute.String("messaging.message.id", strconv.FormatInt(offset, 10)))
	return offset, nil
}

// withContext adds the context of the current span to a copy of the message.
func withContext(ctx context.Context, message *trunkline.NewMessage) *trunkline.NewMessage {
	message = proto.CloneOf(message)
	if message.Headers == nil {
		message.Headers = map[string]string{}
	}
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(message.Headers))
	return message
}

func (s *Sender) publish(ctx context.Context, message *trunkline.NewMessage) (int64, error) {
	receipt, err := s.Producer.Publish(ctx, message)
	if err != nil {
		return 0, err
	}
	return receipt.Offset(ctx)
}

// A Processor has messages handled under a consumer's id.
type Processor struct {
	Tracer    trace.Tracer
	Topic, ID string
}

// Process handles a message in a span, which links to the message's sender. There is no link if the
// headers have no context, or an invalid one.
func (p *Processor) Process(ctx context.Context, message *trunkline.Message, handle func(context.Context, *trunkline.Message) error) error {
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(attributes("process", p.Topic)...),
		trace.WithAttributes(
			attribute.String("messaging.consumer.group.name", p.ID),
			attribute.String("messaging.message.id", strconv.FormatInt(message.GetOffset(), 10))),
	}
	// In an empty context: an invalid header leaves it as it is, and the span in ctx sent nothing.
	found := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(message.GetHeaders()))
	if sender := trace.SpanContextFromContext(found); sender.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: sender}))
	}
	ctx, span := p.Tracer.Start(ctx, "process "+p.Topic, options...)
	defer span.End()
	err := handle(ctx, message)
	if err != nil {
		fail(span, err, fmt.Sprintf("%T", err))
	}
	return err
}

// attributes are what OpenTelemetry's conventions want every span of messaging to say.
func attributes(operation, topic string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "trunkline"),
		attribute.String("messaging.destination.name", topic),
		attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.operation.type", operation),
	}
}

func fail(span trace.Span, err error, kind string) {
	span.SetStatus(otelcodes.Error, err.Error())
	span.SetAttributes(attribute.String("error.type", kind))
}
