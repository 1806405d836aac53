package check

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a check does not find does not matter. Each case breaks one thing, and names what the error says.

func TestABrokenManifestIsRefused(t *testing.T) {
	for _, broken := range []struct{ file, from, to, says string }{
		{"deployment.yaml", "livenessProbe:", "livenessProb:", `unknown field "spec.template.spec.containers[0].livenessProb"`},
		{"deployment.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: sure", "cannot unmarshal"},
		{"deployment.yaml", "  replicas: 2", "  replicas: 2\n  replicas: 3", "already set"},
		{"deployment.yaml", "port: http\n", "port: \"\"\n", "must contain at least one letter"},
		{"deployment.yaml", "- name: tls\n              mountPath", "- name: tsl\n              mountPath", `Not found: "tsl"`},
		{"deployment.yaml", "readOnlyRootFilesystem: true", "privileged: true", "privileged"},
		{"deployment.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "violates the level restricted"},
		{"deployment.yaml", "kind: Deployment", "kind: Deploiment", "no kind"},
		{"service.yaml", "port: 50051", "port: 500510", "between 1 and 65535"},
		{"poddisruptionbudget.yaml", "minAvailable: 1", "minAvailable: 1\n  maxUnavailable: 1", "cannot be both set"},
		{"examples/secrets.yaml", "tls.key: |", "key: |", "tls.key"},
		{"examples/servicemonitor.yaml", "endpoints:", "endpoint:", `unknown field "spec.endpoint"`},
	} {
		_, err := ReadManifests(change(t, "ops/kubernetes/"+broken.file, broken.from, broken.to))
		expect(t, broken.to, err, broken.says)
	}
}

func TestABrokenReferenceIsFound(t *testing.T) {
	for _, broken := range []struct{ file, from, to, says string }{
		{"service.yaml", "selector:\n    app.kubernetes.io/name: trunkline", "selector:\n    app: other", "selects no pod"},
		{"service.yaml", "targetPort: grpc", "targetPort: rpc", "no port of the container is called rpc"},
		{"poddisruptionbudget.yaml", "matchLabels:\n      app.kubernetes.io/name: trunkline", "matchLabels:\n      app: other", "selects no pod"},
		{"deployment.yaml", "/etc/trunkline/database/url", "/etc/trunkline/database/URL", "TRUNKLINE_DATABASE_URL_FILE: no secret"},
		{"deployment.yaml", "secretName: trunkline-tls", "secretName: other", "TRUNKLINE_TLS_CERT: no secret"},
		{"examples/servicemonitor.yaml", "port: http", "port: metrics", "no service has a port metrics"},
	} {
		var all [][]byte
		for _, pattern := range []string{"*.yaml", "examples/*.yaml"} {
			files, err := filepath.Glob(filepath.Join(root, "ops/kubernetes", pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(file, broken.file) {
					text = change(t, "ops/kubernetes/"+broken.file, broken.from, broken.to)
				}
				all = append(all, text)
			}
		}
		objects, err := ReadManifests(bytes.Join(all, []byte("\n---\n")))
		if err != nil {
			t.Fatal(broken.to, err)
		}
		expect(t, broken.to, CheckReferences(objects), broken.says)
	}
}

func TestAGracePeriodThatIsTooShortIsFound(t *testing.T) {
	pod := deployment(t).Spec.Template.Spec
	expect(t, "a long drain", CheckGracePeriod(pod, 24*time.Second), "terminationGracePeriodSeconds")
}

func TestABrokenComposeFileIsRefused(t *testing.T) {
	for _, broken := range []struct{ from, to, says string }{
		{"restart:", "restarts:", "restarts"},
		{"condition: service_healthy", "condition: healthy", "healthy"},
		{"postgres:\n        condition", "postgresql:\n        condition", "undefined service"},
		{"- secrets:/secrets:ro", "- secret:/secrets:ro", "undefined volume"},
	} {
		folder := t.TempDir()
		text := change(t, "compose.yaml", broken.from, broken.to)
		if err := os.WriteFile(filepath.Join(folder, "compose.yaml"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ReadCompose(folder, "compose.yaml")
		expect(t, broken.to, err, broken.says)
	}
}

func TestAnInsecureBrokerOnAllAddressesIsFound(t *testing.T) {
	folder := t.TempDir()
	text := change(t, "compose.yaml", `"127.0.0.1:50051:50051"`, `"50051:50051"`)
	if err := os.WriteFile(filepath.Join(folder, "compose.yaml"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	project, err := ReadCompose(folder, "compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "all addresses", CheckExposure(project.Services["trunkline"]), "port 50051 of an insecure broker")
}

func TestABrokenDockerfileIsRefused(t *testing.T) {
	for _, broken := range []struct{ from, to, says string }{
		{"EXPOSE", "EXPOSED", "unknown instruction"},
		{"--interval=10s", "--every=10s", "unknown flag"},
		{"AS build", "as build", "FromAsCasing"},
		{"USER 10001:10001", "USER trunkline", "not a number"},
		{"USER 10001:10001", "USER 0:0", "not a number"},
		{"HEALTHCHECK", "# HEALTHCHECK", "no health check"},
		{`ENTRYPOINT ["trunkline"]`, "ENTRYPOINT trunkline", "not a list"},
		{"COPY --from=build /src", "COPY --from=builder /src", "no stage builder"},
	} {
		stages, err := ReadDockerfile(change(t, "Dockerfile", broken.from, broken.to))
		if err == nil {
			err = CheckImage(stages)
		}
		expect(t, broken.to, err, broken.says)
	}
}

func TestAMisspeltVariableIsFound(t *testing.T) {
	unknown := UnknownVariables([]byte("TRUNKLINE_HTTP: x\nTRUNKLINE_HTPP: y\n"), read(t, "docs/configuration.md"))
	if strings.Join(unknown, " ") != "TRUNKLINE_HTPP" {
		t.Errorf("found %v", unknown)
	}
}

// A file of the repository in which one piece of text is replaced by another.
func change(t *testing.T, path, from, to string) []byte {
	t.Helper()
	text := string(read(t, path))
	if !strings.Contains(text, from) {
		t.Fatalf("%s does not contain %q", path, from)
	}
	return []byte(strings.Replace(text, from, to, 1))
}

func expect(t *testing.T, what string, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%q: the error is %v, not %q", what, err, says)
	}
}
