package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	trunkline "github.com/trunkline/trunkline/clients/go"
	pb "github.com/trunkline/trunkline/clients/go/trunkline/v1"
)

func TestWhatIsRolledBackIsNotPublished(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	name := fmt.Sprintf("sql_pgx_%d", time.Now().UnixNano())
	url := fmt.Sprintf("%s&options=-csearch_path%%3D%s", os.Getenv("TRUNKLINE_DATABASE_URL"), name)
	conn, err := pgx.Connect(ctx, url)
	succeeds(t, err)
	_, err = conn.Exec(ctx, "create schema "+name)
	succeeds(t, err)
	defer func() {
		_, err := conn.Exec(ctx, "drop schema "+name+" cascade")
		succeeds(t, err)
	}()

	want := []string{`1 {"id": 1, "item": "one coffee"}`, `3 {"id": 3, "item": "three cakes"}`}
	expect := func(what string, got []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	expect("printed", printed(ctx, t, url, name, len(want)))

	client, err := trunkline.Dial(os.Getenv("TRUNKLINE_TARGET"))
	succeeds(t, err)
	defer client.Close()
	stored, err := client.Topics.ReadMessages(ctx, &pb.ReadMessagesRequest{Topic: name})
	succeeds(t, err)
	var messages []string
	for _, message := range stored.GetMessages() {
		messages = append(messages, fmt.Sprintf("%s %s", message.GetKey(), message.GetPayload()))
	}
	expect("stored", messages)

	rows, err := conn.Query(ctx, "select id || ' ' || jsonb_build_object('id', id, 'item', item) from orders order by id")
	succeeds(t, err)
	orders, err := pgx.CollectRows(rows, pgx.RowTo[string])
	succeeds(t, err)
	expect("orders", orders)
}

// printed runs the example until it has printed some lines, and then interrupts it.
func printed(ctx context.Context, t *testing.T, url, topic string, lines int) []string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "sql_pgx")
	output, err := exec.CommandContext(ctx, "go", "build", "-o", program, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	command := exec.CommandContext(ctx, program, topic, "billing")
	command.Env = append(os.Environ(), "DATABASE_URL="+url)
	command.Stderr = t.Output()
	stdout, err := command.StdoutPipe()
	succeeds(t, err)
	succeeds(t, command.Start())
	var got []string
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		got = append(got, scanner.Text())
		if len(got) == lines {
			succeeds(t, command.Process.Signal(os.Interrupt))
		}
	}
	succeeds(t, command.Wait())
	return got
}

func succeeds(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
