package scenarios

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A commitGate fails commits before they reach the broker.
type commitGate struct {
	mu     sync.Mutex
	err    error
	left   int // How many commits fail.
	failed int // How many have failed.
}

// failing returns a gate that fails some commits, and the option that puts it before a client's calls.
func failing(t *testing.T, times int, code codes.Code, reason string) (*commitGate, trunkline.Option) {
	t.Helper()
	failure := status.New(code, "the commit fails")
	if reason != "" {
		var err error
		failure, err = failure.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "trunkline"})
		succeeds(t, err)
	}
	gate := &commitGate{err: failure.Err(), left: times}
	return gate, trunkline.WithDialOptions(grpc.WithChainUnaryInterceptor(gate.intercept))
}

func (gate *commitGate) intercept(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if strings.HasSuffix(method, "/Commit") && gate.fails() {
		return gate.err
	}
	return invoke(ctx, method, request, answer, conn, options...)
}

func (gate *commitGate) fails() bool {
	gate.mu.Lock()
	defer gate.mu.Unlock()
	if gate.left == 0 {
		return false
	}
	gate.left--
	gate.failed++
	return true
}

// waits waits until that many commits have failed.
func (gate *commitGate) waits(t *testing.T, count int) {
	t.Helper()
	for ctx := deadline(t); ; {
		gate.mu.Lock()
		failed := gate.failed
		gate.mu.Unlock()
		if failed >= count {
			return
		}
		succeeds(t, ctx.Err())
		time.Sleep(time.Millisecond)
	}
}

func TestAFailedCommitIsTriedAgain(t *testing.T) {
	for reason, code := range map[string]codes.Code{"": codes.Unavailable, "INTERNAL": codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			topic := newTopic(t)
			topic.publish(numbered(0, 5)...)
			messages, logger := logTo()
			_, gate := failing(t, 2, code, reason)
			client := connect(t, os.Getenv("TRUNKLINE_TARGET"), gate, logger)
			reader := open(t, client, trunkline.ConsumerConfig{Topic: topic.name, ID: billing})
			takes(t, reader, 0, 5)
			messages.expect(t, "a commit failed", "the commit fails")
			for ctx := deadline(t); topic.consumer().GetPosition() != 4; {
				succeeds(t, ctx.Err())
			}
			topic.publish(numbered(5, 1)...)
			takes(t, reader, 5, 1) // The loop goes on.
			succeeds(t, reader.Close(deadline(t)))
		})
	}
}

func TestCommitAndCloseReturnWhyCommitsAreRefused(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 5)...)
	gate, option := failing(t, -1, codes.Internal, "INTERNAL")
	client := connect(t, os.Getenv("TRUNKLINE_TARGET"), option)
	reader := open(t, client, trunkline.ConsumerConfig{Topic: topic.name, ID: billing, ManualCommit: true})
	messages := takes(t, reader, 0, 5)
	succeeds(t, reader.Commit(messages[0]))
	gate.waits(t, 2)
	fails(t, reader.Commit(messages[1]), codes.Internal, "INTERNAL")
	began := time.Now()
	fails(t, reader.Close(deadline(t)), codes.Internal, "INTERNAL")
	equal(t, "closes at once", time.Since(began) < 5*time.Second, true)
	equal(t, "position", topic.consumer().GetPosition(), 0)
}

func TestACommitThatLostItsEpochWaitsForTheNextOne(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 5)...)
	broker := startBroker(t, "127.0.0.1:0")
	gate, option := failing(t, 1, codes.Aborted, "LEASE_LOST")
	client := connect(t, broker.target, option)
	reader := open(t, client, trunkline.ConsumerConfig{Topic: topic.name, ID: billing, ManualCommit: true})
	succeeds(t, reader.Commit(takes(t, reader, 0, 5)[4]))
	gate.waits(t, 1)
	broker.stop()
	startBroker(t, broker.target)
	succeeds(t, reader.Close(deadline(t)))
	equal(t, "position", topic.consumer().GetPosition(), 5)
}

func TestAMessageHasTheEpochInWhichItWasRead(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 5)...)
	broker := startBroker(t, "127.0.0.1:0")
	reader := topic.reader(trunkline.ConsumerConfig{ManualCommit: true}, broker.target)
	commit := func(epoch, position int64) error {
		request := &pb.CommitRequest{Topic: topic.name, ConsumerId: billing, Epoch: epoch, Position: position}
		_, err := topic.consumers.Commit(deadline(t), request)
		return err
	}
	first := takes(t, reader, 0, 1)[0]
	succeeds(t, commit(first.Epoch, 1))
	broker.stop()
	startBroker(t, broker.target)
	topic.publish(numbered(5, 1)...)
	for _, message := range takes(t, reader, 1, 4) { // They were read ahead, before the broker stopped.
		equal(t, "epoch", message.Epoch, first.Epoch)
	}
	last := takes(t, reader, 5, 1)[0]
	refused(t, commit(first.Epoch, 5), codes.Aborted, "LEASE_LOST")
	succeeds(t, commit(last.Epoch, 6))
}
