package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

func TestSubscriptionLifecycle(t *testing.T) {
	topic := newTopic(t)
	ctx := deadline(t)
	request := &pb.CreateSubscriptionRequest{
		Topic:          topic.name,
		SubscriptionId: resize,
		Policy:         &pb.DeliveryPolicy{AckDeadline: durationpb.New(time.Minute)},
	}
	created, err := topic.subscriptions.CreateSubscription(ctx, request)
	succeeds(t, err)
	equal(t, "it existed", created.GetExisted(), false)
	_, err = topic.subscriptions.CreateSubscription(ctx, request)
	refused(t, err, codes.AlreadyExists, "CONSUMER_EXISTS")
	request.IfMissing = true
	again, err := topic.subscriptions.CreateSubscription(ctx, request)
	succeeds(t, err)
	equal(t, "it existed", again.GetExisted(), true)
	equal(t, "it is as it was", proto.Equal(again.GetSubscription(), created.GetSubscription()), true)

	updated, err := topic.subscriptions.UpdateSubscription(ctx, &pb.UpdateSubscriptionRequest{
		Topic:          topic.name,
		SubscriptionId: resize,
		Policy:         &pb.DeliveryPolicy{AckDeadline: durationpb.New(time.Second), MaxDeliveries: 3},
		UpdateMask:     &fieldmaskpb.FieldMask{Paths: []string{"max_deliveries"}},
	})
	succeeds(t, err)
	policy := updated.GetSubscription().GetPolicy()
	equal(t, "max_deliveries", policy.GetMaxDeliveries(), 3)
	equal(t, "ack_deadline", policy.GetAckDeadline().AsDuration(), time.Minute)

	list := &pb.ListSubscriptionsRequest{Topic: topic.name}
	listed, err := topic.subscriptions.ListSubscriptions(ctx, list)
	succeeds(t, err)
	equal(t, "number of subscriptions", len(listed.GetSubscriptions()), 1)
	equal(t, "it is listed", proto.Equal(listed.GetSubscriptions()[0], updated.GetSubscription()), true)
	equal(t, "it is described", proto.Equal(topic.subscription().GetPolicy(), policy), true)

	_, err = topic.subscriptions.DeleteSubscription(ctx, &pb.DeleteSubscriptionRequest{Topic: topic.name, SubscriptionId: resize})
	succeeds(t, err)
	_, err = topic.subscriptions.GetSubscription(ctx, &pb.GetSubscriptionRequest{Topic: topic.name, SubscriptionId: resize})
	refused(t, err, codes.NotFound, "CONSUMER_NOT_FOUND")
	listed, err = topic.subscriptions.ListSubscriptions(ctx, list)
	succeeds(t, err)
	equal(t, "number of subscriptions", len(listed.GetSubscriptions()), 0)
}

func TestSubscriptionStream(t *testing.T) {
	topic := newTopic(t)
	topic.subscribe(&pb.DeliveryPolicy{})
	topic.publish(numbered(0, 10)...)

	worker := topic.work(&pb.OpenSubscription{})
	attached := worker.next().GetAttached()
	equal(t, "min_backoff", attached.GetPolicy().GetMinBackoff().AsDuration(), 0)
	equal(t, "floor", attached.GetFloor(), 0)
	equal(t, "head", attached.GetHead(), 10)
	jobs := worker.jobs(10)
	for i, job := range jobs {
		equal(t, "offset", job.offset, int64(i))
		equal(t, "payload", job.payload, fmt.Sprint("message ", i))
		equal(t, "attempts", job.attempts, 1)
	}
	if event := worker.next(); event.GetCaughtUp() == nil {
		t.Fatalf("got %v, want caught_up", event)
	}

	delivery := jobs[0].delivery
	verdict := acknowledge.Verdict
	worker.settle(7, &pb.Settlement{Delivery: delivery, Verdict: verdict, Offsets: []int64{7, 2}})
	worker.settle(8, &pb.Settlement{Delivery: delivery, Verdict: verdict, Ranges: []*pb.OffsetRange{{FirstOffset: 4, EndOffset: 6}}})
	worker.settle(9, &pb.Settlement{Delivery: delivery, Verdict: verdict, Offsets: []int64{2, 3}})
	equal(t, "applied", worker.settled(7), 2)
	equal(t, "applied", worker.settled(8), 2)
	equal(t, "applied", worker.settled(9), 1)
	worker.close()

	next := topic.work(&pb.OpenSubscription{})
	again := next.jobs(5)
	if got, want := offsets(again), []int64{0, 1, 6, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, job := range again {
		equal(t, "attempts", job.attempts, 2)
	}
	next.settle(1, all(again, acknowledge)...)
	equal(t, "applied", next.settled(1), 5)
	next.close()
	equal(t, "floor", topic.subscription().GetFloor(), 10)
}

func TestSubscriptionTwoWorkers(t *testing.T) {
	topic := newTopic(t)
	topic.subscribe(&pb.DeliveryPolicy{})
	topic.publish(numbered(0, 20)...)

	first := topic.work(&pb.OpenSubscription{MaxOutstandingMessages: 10})
	firsts := first.jobs(10)
	equal(t, "the last of the first", firsts[9].offset, 9)
	stalled := first.next().GetStalled()
	equal(t, "limit", stalled.GetLimit(), pb.Stalled_LIMIT_WORKER_MESSAGES)
	equal(t, "outstanding messages", stalled.GetOutstandingMessages(), 10)
	second := topic.work(&pb.OpenSubscription{})
	seconds := second.jobs(10)
	equal(t, "the first of the second", seconds[0].offset, 10)

	first.settle(1, all(firsts, acknowledge)...)
	equal(t, "applied", first.settled(1), 10)
	second.cancel()
	again := first.jobs(10)
	if !slices.Equal(offsets(again), offsets(seconds)) {
		t.Errorf("got %v, want %v", offsets(again), offsets(seconds))
	}
	for _, job := range again {
		equal(t, "attempts", job.attempts, 2)
	}
	first.settle(2, all(again, acknowledge)...)
	equal(t, "applied", first.settled(2), 10)
	equal(t, "floor", topic.subscription().GetFloor(), 20)
}

func TestSubscriptionReceiveAndSettle(t *testing.T) {
	topic := newTopic(t)
	topic.subscribe(&pb.DeliveryPolicy{})
	topic.publish(numbered(0, 3)...)

	jobs := topic.receive(3)
	applied := topic.settle(
		one(jobs[0], retry(100*time.Millisecond)),
		one(jobs[1], extend(10*time.Minute)),
		one(jobs[2], extend(time.Second)),
	)
	if !slices.Equal(applied, []int32{1, 1, 1}) {
		t.Fatalf("applied: got %v", applied)
	}

	again := topic.receive(2)
	equal(t, "the one that is retried", again[0].offset, 0)
	equal(t, "the one that is late", again[1].offset, 2)
	equal(t, "attempts", again[0].attempts, 2)
	equal(t, "attempts", again[1].attempts, 2)
	applied = topic.settle(
		one(jobs[0], acknowledge),
		one(jobs[1], acknowledge),
		one(jobs[2], acknowledge),
		one(again[0], acknowledge),
		one(again[1], acknowledge),
	)
	if !slices.Equal(applied, []int32{0, 1, 0, 1, 1}) {
		t.Fatalf("applied: got %v", applied)
	}
	equal(t, "floor", topic.subscription().GetFloor(), 3)
}

func TestSubscriptionParked(t *testing.T) {
	topic := newTopic(t)
	topic.subscribe(&pb.DeliveryPolicy{})
	topic.publish(numbered(0, 2)...)
	ctx := deadline(t)

	jobs := topic.receive(2)
	topic.settle(all(jobs, reject("not a picture"))...)
	equal(t, "parked messages", topic.subscription().GetParkedMessages(), 2)
	list := &pb.ListParkedRequest{Topic: topic.name, SubscriptionId: resize, PageSize: 1}
	for offset := range int64(2) {
		page, err := topic.subscriptions.ListParked(ctx, list)
		succeeds(t, err)
		equal(t, "number of messages", len(page.GetMessages()), 1)
		parked := page.GetMessages()[0]
		equal(t, "offset", parked.GetOffset(), offset)
		equal(t, "attempts", parked.GetAttempts(), 1)
		equal(t, "reason", parked.GetReason(), "not a picture")
		equal(t, "it has a time", parked.GetParkTime().GetSeconds() > 0, true)
		list.PageToken = page.GetNextPageToken()
	}
	equal(t, "next page", list.GetPageToken(), "")

	replayed, err := topic.subscriptions.ReplayParked(ctx, &pb.ReplayParkedRequest{
		Topic:          topic.name,
		SubscriptionId: resize,
		Offsets:        []int64{1},
	})
	succeeds(t, err)
	equal(t, "replayed", replayed.GetReplayed(), 1)
	again := topic.receive(1)
	equal(t, "offset", again[0].offset, 1)
	equal(t, "attempts", again[0].attempts, 1)
	topic.settle(all(again, acknowledge)...)

	discarded, err := topic.subscriptions.DiscardParked(ctx, &pb.DiscardParkedRequest{Topic: topic.name, SubscriptionId: resize})
	succeeds(t, err)
	equal(t, "discarded", discarded.GetDiscarded(), 1)
	equal(t, "parked messages", topic.subscription().GetParkedMessages(), 0)
}

func TestSubscriptionFilter(t *testing.T) {
	topic := newTopic(t)
	topic.subscribe(&pb.DeliveryPolicy{Filter: `headers.kind = "order" AND NOT headers:test`})
	topic.publish(
		&pb.NewMessage{Headers: map[string]string{"kind": "offer"}},
		&pb.NewMessage{Headers: map[string]string{"kind": "order"}},
		&pb.NewMessage{Headers: map[string]string{"kind": "order", "test": ""}},
		&pb.NewMessage{},
		&pb.NewMessage{Headers: map[string]string{"kind": "order"}},
	)

	jobs := topic.receive(2)
	if got, want := offsets(jobs), []int64{1, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	topic.settle(one(jobs[0], acknowledge), one(jobs[1], acknowledge))
	equal(t, "floor", topic.subscription().GetFloor(), 5)
}

func TestSubscriptionRefusals(t *testing.T) {
	topic := newTopic(t)
	topic.subscribe(&pb.DeliveryPolicy{})
	ctx := deadline(t)

	_, err := topic.subscriptions.CreateSubscription(ctx, &pb.CreateSubscriptionRequest{
		Topic:  topic.name,
		Policy: &pb.DeliveryPolicy{Filter: `headers.kind == "order"`},
	})
	info := refused(t, err, codes.InvalidArgument, "INVALID_FIELD")
	equal(t, "metadata field", info.GetMetadata()["field"], "policy.filter")
	violated := violation(t, err)
	equal(t, "field", violated.GetField(), "policy.filter")
	if description := violated.GetDescription(); !strings.Contains(description, "at character 14") {
		t.Errorf("the description does not say where: %s", description)
	}

	stream, err := topic.consumers.Consume(ctx, &pb.ConsumeRequest{Topic: topic.name, ConsumerId: resize})
	succeeds(t, err)
	_, err = stream.Recv()
	refused(t, err, codes.FailedPrecondition, "CONSUMER_IS_SHARED")

	_, err = topic.subscriptions.Receive(ctx, &pb.ReceiveRequest{Topic: topic.name, SubscriptionId: billing})
	refused(t, err, codes.FailedPrecondition, "NOT_A_SUBSCRIPTION")
	worker := topic.work(&pb.OpenSubscription{SubscriptionId: billing})
	_, err = worker.events.Recv()
	refused(t, err, codes.FailedPrecondition, "NOT_A_SUBSCRIPTION")
}
