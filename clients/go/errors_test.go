package trunkline

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// refuses checks that an error names a field that is invalid.
func refuses(t *testing.T, err error, field, what string) {
	t.Helper()
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Code != codes.InvalidArgument || refusal.Metadata["field"] != field ||
		refusal.Violations[0].GetField() != field || status.Code(err) != codes.InvalidArgument {
		t.Fatalf("%q: got %v, want a refusal of the field %s", what, err, field)
	}
}

func TestMessagesOverALimitAreRefused(t *testing.T) {
	headers := func(count int, value string) *NewMessage {
		message := &NewMessage{Headers: map[string]string{}}
		for i := range count {
			message.Headers[fmt.Sprint("name-", i)] = value
		}
		return message
	}
	header := func(name, value string) *NewMessage {
		return &NewMessage{Headers: map[string]string{name: value}}
	}
	size, err := messageSize(&NewMessage{Payload: []byte("abc"), Key: []byte("de"), Headers: map[string]string{"f": "gh"}})
	if err != nil || size != 8 {
		t.Fatalf("got %d, %v, want 8", size, err)
	}
	for text, message := range map[string]*NewMessage{
		"message: is 1048577 bytes, and the limit is 1048576":            {Payload: make([]byte, 1<<20), Key: []byte("k")},
		"message.headers: is 65 entries, and the limit is 64":            headers(65, ""),
		"message.headers: is 16412 bytes, and the limit is 16384":        headers(2, strings.Repeat("v", 8200)),
		"message.headers: has a name of 256 bytes, and the limit is 255": header(strings.Repeat("n", 256), ""),
		"message.headers: must not hold an empty name":                   header("", "v"),
		"message.headers: must not hold a NUL character":                 header("n", "\x00"),
		"message.headers: must be UTF-8":                                 header("n", "\xff"),
	} {
		_, err := messageSize(message)
		field, _, _ := strings.Cut(text, ":")
		refuses(t, err, field, text)
		if want := text + " (INVALID_FIELD)"; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	for _, again := range []*Error{
		{Code: codes.Unavailable}, {Code: codes.Unavailable, Reason: "DRAINING"}, {Code: codes.Canceled},
		{Code: codes.Internal}, {Code: codes.Unknown}, {Code: codes.DeadlineExceeded}, {Code: codes.ResourceExhausted},
		{Code: codes.ResourceExhausted, Reason: "RATE_EXCEEDED", RetryDelay: time.Second},
		{Code: codes.DeadlineExceeded, Reason: "REQUEST_STALLED", RetryDelay: time.Second},
		{Code: codes.Internal, Reason: "INTERNAL", RetryDelay: leastDelay},
	} {
		for failures, longest := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
			pause, ok := retryPause(again, failures)
			if longest = max(longest, again.RetryDelay); !ok || pause < longest/2 || pause > longest {
				t.Errorf("%v: pause %v, %v; want at most %v", again, pause, ok, longest)
			}
		}
		if pause, _ := retryPause(again, 1000); pause > longestPause {
			t.Errorf("%v: pause %v", again, pause)
		}
	}
	for _, final := range []error{
		&Error{Code: codes.Internal, Reason: "INTERNAL"}, &Error{Code: codes.Aborted, Reason: "LEASE_TAKEN_OVER"},
		&Error{Code: codes.DeadlineExceeded, Reason: "REQUEST_STALLED"}, ErrClosed,
		&Error{Code: codes.FailedPrecondition, Reason: "PRODUCER_FENCED"}, &Error{Code: codes.Unauthenticated},
		&Error{Code: codes.ResourceExhausted, Reason: "TOO_MANY_TOPICS"}, errors.New("another error"),
	} {
		if _, ok := retryPause(final, 0); ok {
			t.Errorf("%v is tried again", final)
		}
	}
	lost := &Error{Code: codes.Aborted, Reason: "LEASE_LOST"}
	if pause, ok := retryPause(lost, 0, "LEASE_LOST"); !ok || pause < firstPause/2 {
		t.Errorf("a lost lease: pause %v, %v", pause, ok)
	}
	if _, ok := retryPause(lost, 0); ok {
		t.Error("a producer tries again after a lost lease")
	}
}

func TestARefusalInAStreamIsAnError(t *testing.T) {
	refusal := fromRefusal(&pb.PublishRefusal{
		Code: int32(codes.Unavailable), Reason: "TOPIC_BUSY", Message: "the topic is busy",
		Metadata: map[string]string{"topic": "orders"}, RetryDelay: durationpb.New(time.Second),
	})
	if status.Code(refusal) != codes.Unavailable || refusal.Metadata["topic"] != "orders" ||
		refusal.RetryDelay != time.Second || refusal.Error() != "the topic is busy (TOPIC_BUSY)" {
		t.Errorf("got %#v", refusal)
	}
}
