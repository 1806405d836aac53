package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// meter measures the CPU time of a process and all its descendants.
type meter struct {
	pid    int
	before float64
}

func newMeter(pid int) (*meter, error) {
	m := &meter{pid: pid}
	before, err := m.read()
	m.before = before
	return m, err
}

// read returns the CPU seconds used since the meter was created; 0 if it has no process.
func (m *meter) read() (float64, error) {
	if m.pid == 0 {
		return 0, nil
	}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	parents, ticks := map[int]int{}, map[int]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the process has ended in the meantime
		}
		if err != nil {
			return 0, err
		}
		pid, parent, used, err := parseStat(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		parents[pid], ticks[pid] = parent, used
	}
	sum := 0
	for pid, used := range ticks {
		if descends(parents, pid, m.pid) {
			sum += used
		}
	}
	const ticksPerSecond = 100 // the unit of /proc on Linux, whatever the kernel uses internally
	return float64(sum)/ticksPerSecond - m.before, nil
}

// parseStat reads the ticks that a process and its ended children have used.
func parseStat(text []byte) (pid, parent, used int, err error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < 0 {
		return 0, 0, 0, errors.New("unknown format")
	}
	if pid, err = strconv.Atoi(string(bytes.TrimSpace(text[:open]))); err != nil {
		return 0, 0, 0, err
	}
	fields := bytes.Fields(text[end+1:])
	if len(fields) < 15 {
		return 0, 0, 0, errors.New("too few fields")
	}
	if parent, err = strconv.Atoi(string(fields[1])); err != nil {
		return 0, 0, 0, err
	}
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.Atoi(string(field))
		if err != nil {
			return 0, 0, 0, err
		}
		used += ticks
	}
	return pid, parent, used, nil
}

func descends(parents map[int]int, pid, from int) bool {
	for ; pid > 0; pid = parents[pid] {
		if pid == from {
			return true
		}
	}
	return false
}
