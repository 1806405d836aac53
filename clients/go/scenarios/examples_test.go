package scenarios

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestQuickstart(t *testing.T) {
	t.Parallel()
	quickstart := build(t, "quickstart")
	for range 2 {
		output, err := exec.CommandContext(deadline(t), quickstart).Output()
		succeeds(t, err)
		var offset int64
		_, err = fmt.Sscanf(string(output), "published at offset %d", &offset)
		succeeds(t, err)
		if !strings.HasSuffix(string(output), fmt.Sprintf("\nconsumed %d: one coffee\n", offset)) {
			t.Errorf("the last line is not the published message: %s", output)
		}
	}
}

func TestProduceAndConsumeThroughARestart(t *testing.T) {
	t.Parallel()
	broker := startBroker(t, "127.0.0.1:0")
	topic := emptyTopic(t, dial(t, broker.target))

	produce := start(t, broker, "produce", topic.name, shop)
	produce.write(0, 500)
	produce.expect("stored ")
	consume := start(t, broker, "consume", topic.name, billing)
	consume.expectNumbered(0, 500)

	produce.write(500, 500)
	broker.stop()
	produce.write(1000, 500)
	startBroker(t, broker.target)
	consume.expectNumbered(500, 1000)
	succeeds(t, produce.input.Close())
	produce.ends()
	succeeds(t, consume.command.Process.Signal(os.Interrupt))
	consume.ends()
}

func TestWork(t *testing.T) {
	topic := newTopic(t)
	topic.publish(numbered(0, 2)...)
	output, err := exec.CommandContext(deadline(t), build(t, "work"), topic.name, resize).Output()
	succeeds(t, err)
	equal(t, "output", string(output), "0 message 0 (attempt 1)\n1 message 1 (attempt 1)\n")
	equal(t, "floor", topic.subscription().GetFloor(), 2)
}

// A program is a running example.
type program struct {
	t       *testing.T
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
}

func build(t *testing.T, example string) string {
	t.Helper()
	folder := t.TempDir()
	output, err := exec.CommandContext(deadline(t), "go", "build", "-o", folder, "../examples/"+example).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return filepath.Join(folder, example)
}

func start(t *testing.T, broker *broker, example string, arguments ...string) *program {
	t.Helper()
	command := exec.CommandContext(deadline(t), build(t, example), arguments...)
	command.Env = append(os.Environ(), "TRUNKLINE_TARGET="+broker.target)
	command.Stderr = t.Output()
	input, err := command.StdinPipe()
	succeeds(t, err)
	output, err := command.StdoutPipe()
	succeeds(t, err)
	succeeds(t, command.Start())
	t.Cleanup(func() { _ = command.Wait() })
	return &program{t, command, input, bufio.NewReader(output)}
}

func (program *program) write(first, count int) {
	program.t.Helper()
	for i := range count {
		_, err := fmt.Fprintf(program.input, "line %d\n", first+i)
		succeeds(program.t, err)
	}
}

func (program *program) expect(prefix string) {
	program.t.Helper()
	line, err := program.output.ReadString('\n')
	succeeds(program.t, err)
	if !strings.HasPrefix(line, prefix) {
		program.t.Fatalf("got %q, want %q", line, prefix)
	}
}

func (program *program) expectNumbered(first, count int) {
	program.t.Helper()
	for i := range count {
		program.expect(fmt.Sprintf("%d line %[1]d\n", first+i))
	}
}

func (program *program) ends() {
	program.t.Helper()
	_, err := io.Copy(io.Discard, program.output)
	succeeds(program.t, err)
	succeeds(program.t, program.command.Wait())
}
