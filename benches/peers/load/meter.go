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

// meter reads the CPU time of a process and of all that it started.
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

// read tells the seconds since the meter was made; 0 if there is no process to look at.
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
			continue // it has ended meanwhile
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
	const ticksPerSecond = 100 // what Linux tells programs, whatever it counts in itself
	return float64(sum)/ticksPerSecond - m.before, nil
}

// parseStat reads what a process has used, and what those of its children had that have ended.
func parseStat(text []byte) (pid, parent, used int, err error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < 0 {
		return 0, 0, 0, errors.New("not what it is on Linux")
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
