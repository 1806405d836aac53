package main

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// times is a histogram of durations from 1 µs to 1 h, with three significant digits.
type times struct {
	mutex     sync.Mutex
	histogram *hdrhistogram.Histogram
}

func newTimes() *times {
	return &times{histogram: hdrhistogram.New(1, 3_600_000_000, 3)}
}

func (t *times) add(took time.Duration, count int) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	micros := min(max(took.Microseconds(), 1), t.histogram.HighestTrackableValue())
	// The value is within the bounds, so this cannot fail.
	_ = t.histogram.RecordValues(micros, int64(count))
}

func (t *times) addAll(others *times) {
	t.histogram.Merge(others.histogram)
}

// milliseconds returns the percentiles under the names that `trunkline bench` uses.
func (t *times) milliseconds() map[string]float64 {
	if t.histogram.TotalCount() == 0 {
		return nil
	}
	at := func(percent float64) float64 {
		return float64(t.histogram.ValueAtQuantile(percent)) / 1_000
	}
	return map[string]float64{
		"p50": at(50), "p90": at(90), "p99": at(99), "p99.9": at(99.9),
		"max": float64(t.histogram.Max()) / 1_000,
	}
}
