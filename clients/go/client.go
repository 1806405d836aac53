// Package trunkline publishes to Trunkline and consumes from it. A [Producer] batches messages and
// stores each of them once. A [Consumer] yields messages in order, and continues where it was. Both
// resume when their connection breaks.
package trunkline

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// callTimeout is how long a unary call of this package may take.
const callTimeout = 30 * time.Second

// A Client leads to a broker. Its stubs are for what this package does not wrap.
type Client struct {
	Topics        pb.TopicServiceClient
	Producers     pb.ProducerServiceClient
	Consumers     pb.ConsumerServiceClient
	Subscriptions pb.SubscriptionServiceClient
	Access        pb.AccessServiceClient
	Overview      pb.OverviewServiceClient

	address string
	options []grpc.DialOption
	token   *string
	tls     *tls.Config
	logger  *slog.Logger
	conn    *grpc.ClientConn
}

// An Option is an option of [Dial].
type Option func(*Client)

// WithToken sends a token with each call. The target must then begin with https://, or name this
// machine as 127.0.0.1, [::1] or localhost: a network could read a token that is not encrypted.
func WithToken(token string) Option { return func(c *Client) { c.token = &token } }

// WithTLS configures TLS for an https:// target. By default, the broker's certificate must be signed
// by an authority that the system trusts.
func WithTLS(config *tls.Config) Option { return func(c *Client) { c.tls = config } }

// WithLogger sets where broken streams, waits for a lease and gaps are logged, in place of
// [slog.Default].
func WithLogger(logger *slog.Logger) Option { return func(c *Client) { c.logger = logger } }

// WithDialOptions adds gRPC's own options. They may replace the transport credentials, but [Dial] refuses
// those that do not encrypt if there is a token for an https:// target.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(c *Client) { c.options = append(c.options, options...) }
}

// Dial returns a client of the broker at HOST:PORT, http://HOST:PORT or, with TLS, https://HOST:PORT.
// It connects when it is first used.
func Dial(target string, options ...Option) (*Client, error) {
	c := &Client{logger: slog.Default(), options: []grpc.DialOption{
		// gRPC's own pauses grow to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second, Backoff: backoff.Config{
			BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: longestPause,
		}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithChainUnaryInterceptor(unaryErrors),
		grpc.WithChainStreamInterceptor(streamErrors),
	}}
	for _, option := range options {
		option(c)
	}
	err := c.parse(target)
	if err == nil {
		c.conn, err = c.connect()
	}
	if err != nil {
		return nil, err
	}
	c.Topics = pb.NewTopicServiceClient(c.conn)
	c.Producers = pb.NewProducerServiceClient(c.conn)
	c.Consumers = pb.NewConsumerServiceClient(c.conn)
	c.Subscriptions = pb.NewSubscriptionServiceClient(c.conn)
	c.Access = pb.NewAccessServiceClient(c.conn)
	c.Overview = pb.NewOverviewServiceClient(c.conn)
	return c, nil
}

// Close closes the connection of the stubs. Producers and consumers have connections of their own.
func (c *Client) Close() error { return c.conn.Close() }

// A TopicOption changes the request that creates a topic: its retention, for example.
type TopicOption func(*pb.CreateTopicRequest)

// EnsureTopic creates a topic, if it is missing. An existing topic must be as the options say.
func (c *Client) EnsureTopic(ctx context.Context, name string, options ...TopicOption) error {
	request := &pb.CreateTopicRequest{Topic: name, IfMissing: true}
	for _, option := range options {
		option(request)
	}
	_, err := call(ctx, c.Topics.CreateTopic, request)
	return err
}

// call makes a unary call, which ends even if nobody answers.
func call[Q, A any](ctx context.Context, method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return method(ctx, request)
}
