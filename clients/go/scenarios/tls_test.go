package scenarios

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	trunkline "github.com/trunkline/trunkline/clients/go"
	"google.golang.org/grpc/codes"
)

func TestATokenOverTLS(t *testing.T) {
	t.Parallel()
	certificate, key, authorities := certify(t)
	broker := startBroker(t, "127.0.0.1:0", "--auth", "required", "--tls-cert", certificate, "--tls-key", key)
	token := trunkline.WithToken(os.Getenv("TRUNKLINE_SECURE_TOKEN"))
	client := connect(t, "https://"+broker.target, token, trunkline.WithTLS(&tls.Config{RootCAs: authorities}))
	name := "scenarios." + newName(t)
	succeeds(t, client.EnsureTopic(deadline(t), name))
	producer, err := client.NewProducer(deadline(t), trunkline.ProducerConfig{Topic: name, ID: shop})
	succeeds(t, err)
	equal(t, "offset", publishes(t, producer, numbered(0, 1)...)[0], 0)
	succeeds(t, producer.Close(deadline(t)))

	unknown := connect(t, "https://"+broker.target, token).EnsureTopic(deadline(t), name)
	failure := fails(t, unknown, codes.Unavailable, "")
	equal(t, "names the certificate", strings.Contains(failure.Message, "certificate"), true)
}

// certify makes a certificate for this machine, and returns its files and who signed it: itself.
func certify(t *testing.T) (certificate, key string, authorities *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	succeeds(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	succeeds(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	succeeds(t, err)
	write := func(name, kind string, bytes []byte) string {
		path := filepath.Join(t.TempDir(), name)
		succeeds(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600))
		return path
	}
	parsed, err := x509.ParseCertificate(signed)
	succeeds(t, err)
	authorities = x509.NewCertPool()
	authorities.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", signed), write("key.pem", "PRIVATE KEY", encoded), authorities
}
