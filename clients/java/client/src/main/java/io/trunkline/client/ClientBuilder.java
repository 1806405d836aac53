package io.trunkline.client;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Objects;
import java.util.regex.Pattern;

/** How a client connects; from {@link TrunklineClient#builder}. */
public final class ClientBuilder {
    private static final Pattern TARGET =
            Pattern.compile("((?<scheme>https?)://)?(?<host>[\\w.-]+|\\[[0-9A-Fa-f:.]+]):(?<port>\\d{1,5})/?");
    private static final Pattern THIS_MACHINE = Pattern.compile("(?i)localhost|127(\\.\\d{1,3}){3}|\\[::1]");
    private static final Pattern PRINTABLE = Pattern.compile("[!-~]+");
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final String target;
    private String token;
    private Path authority;

    ClientBuilder(String target) {
        this.target = target;
    }

    /** A token that says who is calling. It is sent only over TLS, or to a broker on this machine. */
    public ClientBuilder token(String token) {
        this.token = Objects.requireNonNullElse(token, "").strip();
        return this;
    }

    /**
     * A file with the certificate, in PEM, of the authority that signed the broker's; without it, the
     * authorities that Java trusts. For {@code https} only.
     */
    public ClientBuilder caCertificate(Path pem) {
        authority = pem;
        return this;
    }

    /** Checks the options; the first call connects. */
    public TrunklineClient build() {
        var parts = TARGET.matcher(target);
        if (!parts.matches()) {
            throw invalid("target", "must have the form HOST:PORT, http://HOST:PORT or https://HOST:PORT");
        }
        var host = parts.group("host");
        var port = Integer.parseInt(parts.group("port"));
        if (port > 65_535) throw invalid("target", "must have a port of at most 65535");
        var credentials = "https".equals(parts.group("scheme")) ? tls() : plaintext(host);
        var interceptors = sendingToken();
        return new TrunklineClient(() -> Grpc.newChannelBuilderForAddress(host, port, credentials)
                .intercept(interceptors)
                // Finds connections that broke without notice, also while an answer is awaited.
                .keepAliveTime(20, SECONDS)
                .keepAliveTimeout(10, SECONDS)
                .build());
    }

    private ChannelCredentials plaintext(String host) {
        if (authority != null) throw invalid("caCertificate", "needs a target that begins with https://");
        if (token != null && !THIS_MACHINE.matcher(host).matches()) {
            throw invalid("token", "would cross the network unencrypted: the target must begin with https://, or name"
                    + " this machine as 127.0.0.1, [::1] or localhost");
        }
        return InsecureChannelCredentials.create();
    }

    private ChannelCredentials tls() {
        var tls = TlsChannelCredentials.newBuilder();
        try {
            if (authority != null) tls.trustManager(authority.toFile());
        } catch (IOException unreadable) {
            throw invalid("caCertificate", "cannot be read (" + unreadable.getMessage() + ")");
        }
        return tls.build();
    }

    private List<ClientInterceptor> sendingToken() {
        if (token == null) return List.of();
        if (!PRINTABLE.matcher(token).matches()) {
            throw Errors.invalid("token", "must be printable ASCII characters without spaces, at least one");
        }
        var headers = new Metadata();
        headers.put(AUTHORIZATION, "Bearer " + token);
        return List.of(MetadataUtils.newAttachHeadersInterceptor(headers));
    }

    private TrunklineException invalid(String field, String problem) {
        return Errors.invalid(field, problem + ", but the target is " + target);
    }
}
