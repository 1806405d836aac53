package io.trunkline.examples;

import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.ProcessBuilder.Redirect;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.Base64;

/** A certificate of 127.0.0.1, and its key, as PEM files. It signs itself, so that it is its own authority. */
record TestCertificate(Path certificate, Path key) {
    private static final String PASSWORD = "password";

    static TestCertificate create(Path folder) throws Exception {
        var store = folder.resolve("store");
        var keytool = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                        "-genkeypair", "-alias", "broker", "-keyalg", "RSA", "-keysize", "2048",
                        "-dname", "CN=broker", "-ext", "san=ip:127.0.0.1", "-validity", "2",
                        "-storetype", "PKCS12", "-keystore", store.toString(), "-storepass", PASSWORD)
                .redirectErrorStream(true)
                .redirectOutput(Redirect.DISCARD)
                .start();
        assertTrue(keytool.waitFor(20, SECONDS), "keytool did not end");
        assertEquals(0, keytool.exitValue());
        var keys = KeyStore.getInstance(store.toFile(), PASSWORD.toCharArray());
        return new TestCertificate(
                write(folder.resolve("broker.crt"), "CERTIFICATE", keys.getCertificate("broker").getEncoded()),
                write(folder.resolve("broker.key"), "PRIVATE KEY",
                        keys.getKey("broker", PASSWORD.toCharArray()).getEncoded()));
    }

    private static Path write(Path file, String kind, byte[] content) throws Exception {
        var text = Base64.getMimeEncoder().encodeToString(content);
        return Files.writeString(file, "-----BEGIN %s-----\n%s\n-----END %s-----\n".formatted(kind, text, kind));
    }
}
