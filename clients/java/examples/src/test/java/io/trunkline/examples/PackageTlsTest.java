package io.trunkline.examples;

import static io.trunkline.examples.TestTopic.SHOP;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.Status.Code;
import io.trunkline.client.TrunklineClient;
import io.trunkline.client.TrunklineException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PackageTlsTest {
    @Test
    void aBrokerWithTlsIsTrustedByItsAuthorityOnly(@TempDir Path folder) throws Exception {
        var topic = TestTopic.createEmpty();
        var pem = TestCertificate.create(folder);
        try (var broker = new TestBroker(
                        "--tls-cert", pem.certificate().toString(), "--tls-key", pem.key().toString());
                var trusting = TrunklineClient.builder("https://" + broker.target())
                        .caCertificate(pem.certificate())
                        .token(System.getenv("TRUNKLINE_SECURE_TOKEN"))
                        .build();
                var distrustful = TrunklineClient.connect("https://" + broker.target())) {
            try (var producer = trusting.producer(topic.name(), SHOP).open()) {
                assertEquals(0, producer.publish("one coffee").offset());
            }
            var refused = assertThrows(TrunklineException.class, () -> distrustful.ensureTopic(topic.name()));
            assertEquals(Code.UNAVAILABLE, refused.code());
        }
    }
}
