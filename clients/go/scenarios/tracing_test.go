package scenarios

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	trunkline "github.com/trunkline/trunkline/clients/go"
	"github.com/trunkline/trunkline/clients/go/examples/tracing/spans"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
)

func TestAMessageCarriesTheSendersContextToItsConsumer(t *testing.T) {
	topic := newTopic(t)
	tracer, exported := newTracer(t, sdktrace.AlwaysSample())
	sender := spans.Sender{Tracer: tracer, Producer: topic.producer(trunkline.ProducerConfig{}), Topic: topic.name}

	published := &trunkline.NewMessage{Payload: []byte("one coffee"), Headers: map[string]string{"table": "7"}}
	ctx, around := tracer.Start(called(t, trace.FlagsSampled), "take order")
	offset, err := sender.Send(ctx, published)
	succeeds(t, err)
	around.End()
	message, err := topic.reader(trunkline.ConsumerConfig{}).Next(deadline(t))
	succeeds(t, err)
	processor := spans.Processor{Tracer: tracer, Topic: topic.name, ID: billing}
	succeeds(t, processor.Process(t.Context(), message, handle))

	ended := exported.GetSpans()
	equal(t, "number of spans", len(ended), 3)
	sent, processed := ended[0], ended[2]
	equal(t, "name", sent.Name, "send "+topic.name)
	equal(t, "kind", sent.SpanKind, trace.SpanKindProducer)
	equal(t, "parent", sent.Parent.SpanID(), around.SpanContext().SpanID())
	equalMaps(t, "attributes", attributes(sent), map[string]string{
		"messaging.system":           "trunkline",
		"messaging.destination.name": topic.name,
		"messaging.operation.name":   "send",
		"messaging.operation.type":   "send",
		"messaging.message.id":       fmt.Sprint(offset),
	})
	traceparent := fmt.Sprintf("00-%s-%s-%s", sent.SpanContext.TraceID(), sent.SpanContext.SpanID(), sent.SpanContext.TraceFlags())
	equalMaps(t, "headers", message.GetHeaders(), map[string]string{"table": "7", "traceparent": traceparent, "tracestate": "vendor=7"})
	equalMaps(t, "headers", published.GetHeaders(), map[string]string{"table": "7"})

	equal(t, "name", processed.Name, "process "+topic.name)
	equal(t, "kind", processed.SpanKind, trace.SpanKindConsumer)
	equal(t, "has a parent", processed.Parent.IsValid(), false)
	equalMaps(t, "attributes", attributes(processed), map[string]string{
		"messaging.system":              "trunkline",
		"messaging.destination.name":    topic.name,
		"messaging.operation.name":      "process",
		"messaging.operation.type":      "process",
		"messaging.consumer.group.name": billing,
		"messaging.message.id":          fmt.Sprint(offset),
	})
	equal(t, "number of links", len(processed.Links), 1)
	link := processed.Links[0].SpanContext
	equal(t, "linked trace", link.TraceID(), sent.SpanContext.TraceID())
	equal(t, "linked span", link.SpanID(), sent.SpanContext.SpanID())
	equal(t, "linked tracestate", link.TraceState().String(), "vendor=7")
}

func TestAMessageGetsNoHeaderIfItsSenderIsNotSampled(t *testing.T) {
	topic := newTopic(t)
	producer := topic.producer(trunkline.ProducerConfig{})
	never, exported := newTracer(t, sdktrace.NeverSample())
	always, alsoExported := newTracer(t, sdktrace.AlwaysSample())
	inSpan, span := never.Start(deadline(t), "take order")
	defer span.End()
	for _, sending := range []struct {
		tracer trace.Tracer
		ctx    context.Context
	}{
		{never, inSpan},
		{never, called(t, trace.FlagsSampled)},
		{always, called(t, 0)},
		{always, deadline(t)},
	} {
		sender := spans.Sender{Tracer: sending.tracer, Producer: producer, Topic: topic.name}
		_, err := sender.Send(sending.ctx, &trunkline.NewMessage{})
		succeeds(t, err)
	}

	for _, message := range topic.consume(&pb.ConsumeRequest{}).messages(4) {
		equalMaps(t, "headers", message.GetHeaders(), nil)
	}
	equal(t, "number of spans", len(exported.GetSpans())+len(alsoExported.GetSpans()), 0)
}

func TestAMessageWithoutAValidContextIsProcessedWithoutALink(t *testing.T) {
	t.Parallel()
	for _, headers := range []map[string]string{
		nil,
		{"traceparent": "garbage"},
		{"traceparent": "00-00000000000000000000000000000000-0000000000000001-01"},
		{"traceparent": "ff-00000000000000000000000000000001-0000000000000001-01"},
		{"tracestate": "vendor=7"},
	} {
		tracer, exported := newTracer(t, sdktrace.AlwaysSample())
		processor := spans.Processor{Tracer: tracer, Topic: "orders", ID: billing}
		ctx, span := tracer.Start(t.Context(), "poll")
		succeeds(t, processor.Process(ctx, &trunkline.Message{Message: &pb.Message{Headers: headers}}, handle))
		span.End()
		equal(t, "number of spans", len(exported.GetSpans()), 2)
		equal(t, fmt.Sprint("number of links with the headers ", headers), len(exported.GetSpans()[0].Links), 0)
	}
}

func TestASpanNamesTheFailure(t *testing.T) {
	topic := newTopic(t)
	tracer, exported := newTracer(t, sdktrace.AlwaysSample())
	sender := spans.Sender{Tracer: tracer, Producer: topic.producer(trunkline.ProducerConfig{}), Topic: topic.name}
	topic.producer(trunkline.ProducerConfig{}) // Fences the one before.
	_, err := sender.Send(called(t, trace.FlagsSampled), &trunkline.NewMessage{})
	fails(t, err, codes.FailedPrecondition, "PRODUCER_FENCED")
	processor := spans.Processor{Tracer: tracer, Topic: topic.name, ID: billing}
	err = processor.Process(t.Context(), &trunkline.Message{}, func(context.Context, *trunkline.Message) error {
		return io.ErrUnexpectedEOF
	})
	equal(t, "error", err, io.ErrUnexpectedEOF)

	ended := exported.GetSpans()
	equal(t, "number of spans", len(ended), 2)
	for i, failure := range []string{"FAILED_PRECONDITION", "*errors.errorString"} {
		equal(t, "status", ended[i].Status.Code, otelcodes.Error)
		equal(t, "error type", attributes(ended[i])["error.type"], failure)
	}
}

func TestTracingPrintsItsSpans(t *testing.T) {
	topic := newTopic(t)
	command := exec.CommandContext(deadline(t), build(t, "tracing"), topic.name, shop, billing)
	command.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "OTEL_")
	})
	output, err := command.CombinedOutput()
	succeeds(t, err)
	for _, expected := range []string{
		"published at offset 0\n",
		"consumed 0: one coffee\n",
		`"Name": "take order"`,
		fmt.Sprintf(`"Name": "send %s"`, topic.name),
		fmt.Sprintf(`"Name": "process %s"`, topic.name),
	} {
		if !strings.Contains(string(output), expected) {
			t.Errorf("the output does not contain %s: %s", expected, output)
		}
	}
}

// newTracer returns a tracer, and where the spans go that it samples.
func newTracer(t *testing.T, sampler sdktrace.Sampler) (trace.Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	exported := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported), sdktrace.WithSampler(sampler))
	return provider.Tracer("scenarios"), exported
}

// called returns the context of a call whose caller has a span in another process.
func called(t *testing.T, flags trace.TraceFlags) context.Context {
	t.Helper()
	state, err := trace.ParseTraceState("vendor=7")
	succeeds(t, err)
	return trace.ContextWithRemoteSpanContext(deadline(t), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{7}, SpanID: trace.SpanID{1}, TraceFlags: flags, TraceState: state, Remote: true,
	}))
}

// handle processes a message without an error.
func handle(context.Context, *trunkline.Message) error {
	return nil
}

func attributes(span tracetest.SpanStub) map[string]string {
	found := make(map[string]string)
	for _, attribute := range span.Attributes {
		found[string(attribute.Key)] = attribute.Value.Emit()
	}
	return found
}

func equalMaps(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
