package trunkline

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"
)

// What a broker accepts.
const (
	maxMessageBytes    = 1 << 20
	maxHeaders         = 64
	maxHeadersBytes    = 16 << 10
	maxHeaderNameBytes = 255
)

// messageSize returns a message's bytes, or what a broker would refuse in it.
func messageSize(message *NewMessage) (int, error) {
	size := 0
	for name, value := range message.GetHeaders() {
		size += len(name) + len(value)
		switch {
		case name == "":
			return 0, invalid("message.headers", "must not hold an empty name")
		case len(name) > maxHeaderNameBytes:
			return 0, overLimit("message.headers", "has a name of %d bytes", len(name), maxHeaderNameBytes)
		case strings.ContainsRune(name+value, 0):
			return 0, invalid("message.headers", "must not hold a NUL character")
		case !utf8.ValidString(name) || !utf8.ValidString(value):
			return 0, invalid("message.headers", "must be UTF-8")
		}
	}
	if count := len(message.GetHeaders()); count > maxHeaders {
		return 0, overLimit("message.headers", "is %d entries", count, maxHeaders)
	}
	if size > maxHeadersBytes {
		return 0, overLimit("message.headers", "is %d bytes", size, maxHeadersBytes)
	}
	size += len(message.GetPayload()) + len(message.GetKey())
	if size > maxMessageBytes {
		return 0, overLimit("message", "is %d bytes", size, maxMessageBytes)
	}
	return size, nil
}

func overLimit(field, format string, size, limit int) *Error {
	e := invalid(field, fmt.Sprintf(format+", and the limit is %d", size, limit))
	e.Metadata["limit"] = fmt.Sprint(limit)
	return e
}

// setting sets an option that is 0 to its default, and reports one that is out of its range.
func setting[T cmp.Ordered](problem *error, field string, value *T, standard, least, most T) {
	*value = cmp.Or(*value, standard)
	if *problem == nil && (*value < least || *value > most) {
		*problem = invalid(field, fmt.Sprintf("is %v, and must be from %v to %v", *value, least, most))
	}
}
