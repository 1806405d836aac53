package trunkline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrClosed is the error of a producer or consumer that is closed.
var ErrClosed error = newError(codes.Canceled, "CLOSED", "it is closed")

// leastDelay stands for a retry delay of 0, as no delay says that a retry will not help.
const leastDelay = time.Nanosecond

// An Error says why a call failed, a message was not stored, or a consumer ended. Every error of this
// package and of a client's stubs is one, except for those of the caller's own contexts.
type Error struct {
	Code codes.Code
	// Reason is a constant such as TOPIC_NOT_FOUND. It is empty if no broker answered. CLOSED and
	// NOT_COMMITTED are reasons of this package alone.
	Reason  string
	Message string
	// Metadata holds the values that the message names.
	Metadata map[string]string
	// RetryDelay is how long to wait before a retry; 0 if a retry will not help.
	RetryDelay time.Duration
	// Violations names the fields that are invalid.
	Violations []*errdetails.BadRequest_FieldViolation

	cause error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s (%s)", e.Message, cmp.Or(e.Reason, e.Code.String()))
}

// Unwrap returns the gRPC status, so that [status.Code] works with an Error.
func (e *Error) Unwrap() error { return e.cause }

// isTransient is whether the same call may succeed later.
func (e *Error) isTransient() bool {
	switch e.Code {
	case codes.Unavailable:
		return true
	case codes.Canceled, codes.Unknown, codes.Internal, codes.DeadlineExceeded, codes.ResourceExhausted:
		// A broker gives a reason. Without one, a proxy or the transport made up the code.
		return e.Reason == "" || e.RetryDelay > 0
	default:
		return e.RetryDelay > 0
	}
}

// isRefusal is whether a broker refused a call, and will refuse it for as long as nothing changes.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && !e.isTransient()
}

// outcomeUnknown is the error for messages that were sent, and may or may not be stored. Its cause, if
// there is one, is why their answer no longer comes.
func outcomeUnknown(message string, cause error) *Error {
	e := newError(codes.Unavailable, "OUTCOME_UNKNOWN", message)
	e.cause = errors.Join(e.cause, cause) // The status comes first: it is what status.Code finds.
	return e
}

func newError(code codes.Code, reason, message string) *Error {
	return &Error{Code: code, Reason: reason, Message: message, cause: status.Error(code, message)}
}

// invalid is the error for what no broker would accept.
func invalid(field, problem string) *Error {
	e := newError(codes.InvalidArgument, "INVALID_FIELD", field+": "+problem)
	e.Metadata = map[string]string{"field": field}
	e.Violations = []*errdetails.BadRequest_FieldViolation{{Field: field, Description: problem}}
	return e
}

// fromStatus turns a gRPC status into an Error, and leaves other errors as they are.
func fromStatus(err error) error {
	refusal, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	e := &Error{Code: refusal.Code(), Message: refusal.Message(), cause: err}
	for _, detail := range refusal.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.RetryInfo:
			e.RetryDelay = max(leastDelay, detail.GetRetryDelay().AsDuration())
		case *errdetails.BadRequest:
			e.Violations = detail.GetFieldViolations()
		}
	}
	return e
}

// fromRefusal is the error with which Publish would have refused a request of a stream.
func fromRefusal(refusal *pb.PublishRefusal) *Error {
	e := newError(codes.Code(refusal.GetCode()), refusal.GetReason(), refusal.GetMessage())
	e.Metadata = refusal.GetMetadata()
	if refusal.GetRetryDelay() != nil {
		e.RetryDelay = max(leastDelay, refusal.GetRetryDelay().AsDuration())
	}
	return e
}

func hasReason(err error, reason string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Reason == reason
}

func unaryErrors(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return fromStatus(invoke(ctx, method, request, answer, conn, options...))
}

func streamErrors(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	return errorStream{stream}, fromStatus(err)
}

// The errors of an errorStream are of this package's type.
type errorStream struct{ grpc.ClientStream }

func (s errorStream) RecvMsg(message any) error { return fromStatus(s.ClientStream.RecvMsg(message)) }
func (s errorStream) SendMsg(message any) error { return fromStatus(s.ClientStream.SendMsg(message)) }
