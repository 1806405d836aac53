package trunkline

import "time"

// A ProducerConfig says who publishes, and how. A limit that is 0 has its default.
type ProducerConfig struct {
	Topic string
	ID    string
	// Linger is how long a message may wait for others to share its request, while other requests are
	// unanswered: at most 10 minutes, by default 1 ms.
	Linger time.Duration
	// MaxBatchMessages is how many messages a request may hold: at most 10,000, by default 4,000.
	MaxBatchMessages int
	// MaxBatchBytes is how many bytes a request may hold: at most 8 MiB, by default 1 MiB. A larger
	// message gets a request of its own.
	MaxBatchBytes int
	// MaxBufferedBytes is how many bytes of messages may be unanswered: 2 MiB to 1 GiB, by default
	// 32 MiB. A message counts for its size, 100 bytes, and 100 more for each header.
	MaxBufferedBytes int
	// RetryFor is how long messages wait for a broker that does not answer, before they fail: at most
	// 24 hours, by default 60 s. Those that were sent fail with OUTCOME_UNKNOWN.
	RetryFor time.Duration
}

func (c *ProducerConfig) complete() (problem error) {
	if c.ID == "" {
		return invalid("ID", "must not be empty")
	}
	setting(&problem, "Linger", &c.Linger, time.Millisecond, 0, 10*time.Minute)
	setting(&problem, "MaxBatchMessages", &c.MaxBatchMessages, 4_000, 1, 10_000)
	setting(&problem, "MaxBatchBytes", &c.MaxBatchBytes, 1<<20, 1, 8<<20)
	setting(&problem, "MaxBufferedBytes", &c.MaxBufferedBytes, 32<<20, 2<<20, 1<<30)
	setting(&problem, "RetryFor", &c.RetryFor, time.Minute, 0, 24*time.Hour)
	return problem
}
