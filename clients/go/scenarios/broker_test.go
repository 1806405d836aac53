package scenarios

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A broker for a single test, on the same database as the broker that all tests share.
type broker struct {
	t       *testing.T
	command *exec.Cmd
	target  string
}

func startBroker(t *testing.T, listen string, options ...string) *broker {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Getenv("TRUNKLINE_BIN"), append([]string{"serve",
		"--listen", listen, "--database-url", os.Getenv("TRUNKLINE_DATABASE_URL"), "--log", "warn"}, options...)...)
	command.Stderr = t.Output()
	stdout, err := command.StdoutPipe()
	succeeds(t, err)
	succeeds(t, command.Start())
	t.Cleanup(func() { _ = command.Wait() })
	ready, err := bufio.NewReader(stdout).ReadString('\n')
	succeeds(t, err)
	target, listens := strings.CutPrefix(strings.TrimSpace(ready), "listening on ")
	equal(t, "the broker listens", listens, true)
	return &broker{t, command, target}
}

// stop ends the broker with SIGTERM, as a machine that shuts down does.
func (broker *broker) stop() {
	broker.t.Helper()
	succeeds(broker.t, broker.command.Process.Signal(syscall.SIGTERM))
	succeeds(broker.t, broker.command.Wait())
}

// kill ends the broker with SIGKILL.
func (broker *broker) kill() {
	broker.t.Helper()
	succeeds(broker.t, broker.command.Process.Kill())
	_ = broker.command.Wait()
}

// freeze stops the broker's process with SIGSTOP; thaw has it go on.
func (broker *broker) freeze() {
	broker.t.Helper()
	succeeds(broker.t, broker.command.Process.Signal(syscall.SIGSTOP))
}

func (broker *broker) thaw() {
	broker.t.Helper()
	succeeds(broker.t, broker.command.Process.Signal(syscall.SIGCONT))
}
