package main

import (
	"strconv"
	"time"
)

// stampSize is the number of hexadecimal digits at the start of a payload: when the message was due.
const stampSize = 16

// beginning is the zero of these times. Publishers and consumers share one process.
var beginning = time.Now()

// appendPayload appends the payload of a message with its number and due time. It looks like a log
// line, and is identical to what `trunkline bench` makes.
func appendPayload(to []byte, number uint64, size int, due time.Duration) []byte {
	end := len(to) + size
	to = appendHex(to, uint64(due))
	to = append(to, ' ')
	for state := number; len(to) < end; state += 1 << 32 {
		mixed := mix(state)
		to = append(to, "INFO api request id="...)
		to = appendHex(to, mixed)
		to = append(to, " path=/orders/"...)
		to = strconv.AppendUint(to, mixed%100_003, 10)
		to = append(to, " status=200 took="...)
		to = strconv.AppendUint(to, mixed>>52, 10)
		to = append(to, "us; "...)
	}
	return to[:end]
}

// payloads makes the payloads of consecutive messages.
func payloads(first uint64, count, size int, due time.Duration) [][]byte {
	// Each payload is written in whole pieces and then cut, so it needs extra room.
	const line = 128
	room := make([]byte, 0, count*size+line)
	made := make([][]byte, count)
	for i := range made {
		begin := len(room)
		room = appendPayload(room, first+uint64(i), size, due)
		made[i] = room[begin:len(room):len(room)]
	}
	return made
}

// age returns how long ago a message was due; false if the payload has no time.
func age(payload []byte) (time.Duration, bool) {
	if len(payload) < stampSize {
		return 0, false
	}
	due, err := strconv.ParseUint(string(payload[:stampSize]), 16, 64)
	if err != nil {
		return 0, false
	}
	return time.Since(beginning) - time.Duration(due), true
}

func appendHex(to []byte, number uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		to = append(to, digits[number>>shift&0xf])
	}
	return to
}

// mix makes a pseudo-random number.
func mix(number uint64) uint64 {
	mixed := (number + 1) * 0x9E37_79B9_7F4A_7C15
	return (mixed ^ (mixed >> 29)) * 0xBF58_476D_1CE4_E5B9
}
