// Package token connects to a broker with a token, which says who is calling.
package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
)

// bearer is sent with each call. gRPC refuses to send it without TLS unless it is local.
type bearer struct {
	token string
	local bool
}

func (bearer bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + bearer.token}, nil
}

func (bearer bearer) RequireTransportSecurity() bool {
	return !bearer.local
}

// DialLocal connects without TLS to a broker on this machine. It fails for any other broker.
func DialLocal(target, token string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(local.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer{token: token, local: true}))
}

// DialTLS connects to a broker whose certificate must be signed by one of these authorities; nil
// means those that the system trusts.
func DialTLS(target, token string, authorities *x509.CertPool) (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: authorities})),
		grpc.WithPerRPCCredentials(bearer{token: token}))
}
