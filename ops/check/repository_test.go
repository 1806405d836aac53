package check

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const root = "../.."

func TestKubernetesAcceptsTheManifests(t *testing.T) {
	manifests(t)
}

func TestTheManifestsReferToEachOther(t *testing.T) {
	if err := CheckReferences(manifests(t)); err != nil {
		t.Error(err)
	}
}

func TestBrokersHaveTimeToDrain(t *testing.T) {
	text, err := DocumentedDefault("--drain-timeout", read(t, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	drain, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckGracePeriod(deployment(t).Spec.Template.Spec, drain); err != nil {
		t.Error(err)
	}
	broker, err := ReadCompose(root, "compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if grace := broker.Services["trunkline"].StopGracePeriod; grace == nil || time.Duration(*grace) < drain+2*time.Second {
		t.Errorf("compose.yaml: stop_grace_period is %v", grace)
	}
}

func TestComposeAcceptsItsFiles(t *testing.T) {
	for _, files := range [][]string{{"compose.yaml"}, {"compose.yaml", "compose.tls.yaml"}} {
		project, err := ReadCompose(root, files...)
		if err != nil {
			t.Fatal(files, err)
		}
		if err := CheckExposure(project.Services["trunkline"]); err != nil {
			t.Error(files, err)
		}
	}
}

func TestThePasswordOfComposeIsMadeOnceAndUsedByBoth(t *testing.T) {
	project, err := ReadCompose(root, "compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	password, postgres := project.Services["password"], project.Services["postgres"]
	// Compose writes a dollar sign as two. The owners of the files exist in the image only.
	script := strings.NewReplacer("$$", "$", "/secrets", t.TempDir(), "-o postgres", "", "-o 10001", "").
		Replace(password.Command[0])
	folder := strings.Fields(script)[1]
	run := func() (string, string) {
		shell := exec.Command(password.Entrypoint[0], append(password.Entrypoint[1:], script)...)
		if output, err := shell.CombinedOutput(); err != nil {
			t.Fatal(err, string(output))
		}
		secret := func(name string) string {
			text, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		return secret("postgres-password"), secret("database-url")
	}
	made, url := run()
	if len(made) != 48 {
		t.Errorf("the password is %q", made)
	}
	user, database := postgres.Environment["POSTGRES_USER"], postgres.Environment["POSTGRES_DB"]
	if want := "postgresql://" + *user + ":" + made + "@postgres/" + *database + "?sslmode=disable"; url != want {
		t.Errorf("the URL is %q, not %q", url, want)
	}
	if again, _ := run(); again != made {
		t.Error("another start makes another password")
	}
}

func TestBuildKitAcceptsTheDockerfile(t *testing.T) {
	stages := stages(t)
	if err := CheckImage(stages); err != nil {
		t.Error(err)
	}
	version := Label(stages[len(stages)-1], "org.opencontainers.image.version")
	if !bytes.Contains(read(t, "Cargo.toml"), []byte("\nversion = \""+version+"\"\n")) {
		t.Errorf("the label has the version %q, and Cargo.toml another one", version)
	}
	if image := deployment(t).Spec.Template.Spec.Containers[0].Image; !strings.HasSuffix(image, ":"+version) {
		t.Errorf("the deployment has %s, and the image the version %s", image, version)
	}
}

// A file that a container may read belongs to the user of the image, or of its group.
func TestTheImageAndWhatRunsItHaveTheSameUser(t *testing.T) {
	all := stages(t)
	user, group, _ := strings.Cut(find[*instructions.UserCommand](all[len(all)-1]).User, ":")
	pod := deployment(t).Spec.Template.Spec.SecurityContext
	for _, id := range []*int64{pod.RunAsGroup, pod.FSGroup} {
		if strconv.FormatInt(*id, 10) != group {
			t.Errorf("the deployment has the group %d, and the image %s", *id, group)
		}
	}
	if strconv.FormatInt(*pod.RunAsUser, 10) != user {
		t.Errorf("the deployment has the user %d, and the image %s", *pod.RunAsUser, user)
	}
	if !bytes.Contains(read(t, "compose.yaml"), []byte("install -o "+user+" ")) {
		t.Errorf("compose.yaml does not give the URL to the user %s", user)
	}
	if !bytes.Contains(read(t, "compose.tls.yaml"), []byte("chown -R "+user+" certs")) {
		t.Errorf("compose.tls.yaml does not give the certificates to the user %s", user)
	}
}

// Before the sources are there, Cargo wants a file for each target.
func TestTheDockerfileMakesAFileForEachTarget(t *testing.T) {
	var script string
	for _, command := range stages(t)[0].Commands {
		if it, ok := command.(*instructions.RunCommand); ok {
			script = it.CmdLine[0]
			break
		}
	}
	folder := t.TempDir()
	for _, file := range []string{"Cargo.toml", "Cargo.lock"} {
		if err := os.WriteFile(filepath.Join(folder, file), read(t, file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	output := run(t, folder, "sh", "-c", script+" >/dev/null && cargo metadata --no-deps --offline --format-version 1")
	var metadata struct {
		Packages []struct {
			Targets []struct {
				Name    string
				SrcPath string `json:"src_path"`
			}
		}
	}
	if err := json.Unmarshal(output, &metadata); err != nil {
		t.Fatal(err)
	}
	if len(metadata.Packages) != 1 {
		t.Fatal(string(output))
	}
	for _, target := range metadata.Packages[0].Targets {
		if _, err := os.Stat(target.SrcPath); err != nil {
			t.Errorf("target %s: %v", target.Name, err)
		}
	}
}

func TestTheBuilderGetsTheSourcesAndNothingElse(t *testing.T) {
	tracked := strings.Fields(string(run(t, root, "git", "ls-files")))
	isSource := func(path string) bool {
		first, _, _ := strings.Cut(path, "/")
		return slices.Contains([]string{"Cargo.toml", "Cargo.lock", "build.rs", "build", "migrations", "proto", "src"}, first)
	}
	others := []string{".git/config", ".env", "certs/tls.key", "target/release/trunkline", "trunkline-data/data/PG_VERSION",
		"clients/python/.venv/bin/python", "clients/typescript/node_modules/a/index.js", "admin.token"}
	ignored, err := Ignored(bytes.NewReader(read(t, ".dockerignore")), append(tracked, others...))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(tracked, others...) {
		if isSource(path) == slices.Contains(ignored, path) {
			t.Errorf(".dockerignore: %s is ignored, or should be", path)
		}
	}
}

func TestABrokerReadsEveryVariableThatIsSet(t *testing.T) {
	files := []string{"Dockerfile", "compose.yaml", "compose.tls.yaml"}
	for _, pattern := range []string{"ops/kubernetes/*.yaml", "ops/systemd/*", "ops/debian/*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range found {
			name, _ := filepath.Rel(root, file)
			files = append(files, name)
		}
	}
	documentation := read(t, "docs/configuration.md")
	for _, file := range files {
		for _, name := range UnknownVariables(read(t, file), documentation) {
			t.Errorf("%s: docs/configuration.md does not have %s", file, name)
		}
	}
}

// All objects, those of the examples included.
func manifests(t *testing.T) []runtime.Object {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "ops/kubernetes", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("there are no manifests", err)
	}
	examples, err := filepath.Glob(filepath.Join(root, "ops/kubernetes/examples", "*.yaml"))
	if err != nil || len(examples) == 0 {
		t.Fatal("there are no examples", err)
	}
	var objects []runtime.Object
	for _, file := range append(files, examples...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found, err := ReadManifests(text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		objects = append(objects, found...)
	}
	return objects
}

func deployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	deployments := of[*appsv1.Deployment](manifests(t))
	if len(deployments) != 1 {
		t.Fatalf("there are %d deployments", len(deployments))
	}
	return deployments[0]
}

func stages(t *testing.T) []instructions.Stage {
	t.Helper()
	stages, err := ReadDockerfile(read(t, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func run(t *testing.T, folder, program string, arguments ...string) []byte {
	t.Helper()
	command := exec.Command(program, arguments...)
	command.Dir = folder
	output, err := command.Output()
	if err != nil {
		t.Fatal(program, err, string(output))
	}
	return output
}
