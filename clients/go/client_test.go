package trunkline

import (
	"crypto/tls"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestTargets(t *testing.T) {
	for target, address := range map[string]string{
		"127.0.0.1:50051":              "dns:///127.0.0.1:50051",
		"broker.example:50051":         "dns:///broker.example:50051",
		"http://[::1]:50051":           "dns:///[::1]:50051",
		"https://broker.example:50051": "dns:///broker.example:50051",
		"https://broker.example:443/":  "dns:///broker.example:443",
	} {
		client, err := Dial(target)
		if err != nil {
			t.Errorf("%s: %v", target, err)
		} else if client.address != address {
			t.Errorf("%s leads to %s, want %s", target, client.address, address)
		} else if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, target := range []string{
		"", "broker.example", ":50051", "broker.example:", "http://broker.example", "ftp://broker.example:21",
		"http://user@broker.example:50051", "http://broker.example:50051/path", "broker.example:port",
		"http://broker.example:50051?query", "unix:///socket",
	} {
		_, err := Dial(target)
		refuses(t, err, "target", target)
	}
	_, err := Dial("http://127.0.0.1:50051", WithTLS(&tls.Config{}))
	refuses(t, err, "target", "TLS without https")
}

func TestATokenIsNotSentWhereANetworkCouldReadIt(t *testing.T) {
	for _, target := range []string{
		"127.0.0.1:50051", "127.9.9.9:50051", "http://[::1]:50051", "http://[::ffff:127.0.0.1]:50051",
		"localhost:50051", "http://LOCALHOST:50051", "https://broker.example:50051",
	} {
		client, err := Dial(target, WithToken("secret"))
		if err != nil {
			t.Errorf("%s: %v", target, err)
		} else if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, target := range []string{
		"10.0.0.1:50051", "http://0.0.0.0:50051", "http://[::]:50051", "localhost.example:50051", "http://broker.example:50051",
	} {
		_, err := Dial(target, WithToken("secret"))
		refuses(t, err, "target", target)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error holds the token: %v", err)
		}
	}
	noTLS := WithDialOptions(grpc.WithTransportCredentials(insecure.NewCredentials()))
	_, err := Dial("https://broker.example:50051", WithToken("secret"), noTLS)
	refuses(t, err, "target", "TLS replaced by a dial option")
	if !strings.Contains(err.Error(), "transport level security") {
		t.Errorf("got %v", err)
	}
	for _, token := range []string{"", "two words", "two\nlines", "größe"} {
		_, err := Dial("127.0.0.1:50051", WithToken(token))
		refuses(t, err, "token", token)
	}
}

func TestSettingsOutOfTheirRangeAreRefused(t *testing.T) {
	for field, config := range map[string]ProducerConfig{
		"ID":               {},
		"Linger":           {ID: "shop", Linger: -1},
		"MaxBatchMessages": {ID: "shop", MaxBatchMessages: 10_001},
		"MaxBatchBytes":    {ID: "shop", MaxBatchBytes: 8<<20 + 1},
		"MaxBufferedBytes": {ID: "shop", MaxBufferedBytes: 1},
		"RetryFor":         {ID: "shop", RetryFor: -1},
	} {
		refuses(t, config.complete(), field, field)
	}
	for field, config := range map[string]ConsumerConfig{
		"ID":          {},
		"MaxInFlight": {ID: "billing", MaxInFlight: -1},
		"Heartbeat":   {ID: "billing", Heartbeat: 1},
		"ClientName":  {ID: "billing", ClientName: "\xff"},
	} {
		refuses(t, config.complete(), field, field)
	}
	config := ProducerConfig{ID: "shop", MaxBatchMessages: 10_001}
	const text = "MaxBatchMessages: is 10001, and must be from 1 to 10000 (INVALID_FIELD)"
	if err := config.complete(); err.Error() != text {
		t.Errorf("got %q, want %q", err, text)
	}
}
