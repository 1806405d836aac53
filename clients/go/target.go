package trunkline

import (
	"context"
	"net/netip"
	"net/url"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// parse decides how to connect to a target, and refuses to send a token that a network could read.
func (c *Client) parse(target string) error {
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	parsed, err := url.Parse(target)
	if err != nil || parsed.Hostname() == "" || parsed.Port() == "" || strings.TrimSuffix(target, "/") != parsed.Scheme+"://"+parsed.Host {
		return invalid("target", "must have the form HOST:PORT, http://HOST:PORT or https://HOST:PORT")
	}
	c.address = "dns:///" + parsed.Host
	transport := insecure.NewCredentials()
	switch {
	case parsed.Scheme == "https":
		transport = credentials.NewTLS(c.tls)
	case parsed.Scheme != "http":
		return invalid("target", "must begin with http:// or https://")
	case c.tls != nil:
		return invalid("target", "must begin with https://, since TLS is configured")
	case c.token != nil && !isLoopback(parsed.Hostname()):
		return invalid("target", "must begin with https:// or name this machine as 127.0.0.1, [::1] or localhost: the network could read the token")
	}
	c.options = append([]grpc.DialOption{grpc.WithTransportCredentials(transport)}, c.options...)
	if c.token == nil {
		return nil
	}
	isInvisible := func(char rune) bool { return char <= ' ' || char > '~' }
	if *c.token == "" || strings.ContainsFunc(*c.token, isInvisible) {
		return invalid("token", "must be printable ASCII characters, at least one")
	}
	c.options = append(c.options, grpc.WithPerRPCCredentials(bearer{*c.token, parsed.Scheme == "https"}))
	return nil
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// connect makes a connection, which is opened when it is first used.
func (c *Client) connect() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(c.address, c.options...)
	if err != nil {
		return nil, invalid("target", err.Error())
	}
	return conn, nil
}

// A bearer is a token that is sent with each call.
type bearer struct {
	token   string
	needTLS bool // Unless the target is this machine.
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity has gRPC refuse to connect if a dial option has replaced TLS.
func (b bearer) RequireTransportSecurity() bool { return b.needTLS }
