package check

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// ReadDockerfile returns the stages of a Dockerfile, or what BuildKit would refuse or warn of.
func ReadDockerfile(text []byte) ([]instructions.Stage, error) {
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var warnings []error
	warn := func(rule, _, _, message string, _ []parser.Range) {
		warnings = append(warnings, fmt.Errorf("%s: %s", rule, message))
	}
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{Warn: warn}))
	return stages, errors.Join(append(warnings, err)...)
}

// CheckImage returns what is wrong with the image of the last stage, which serves a broker.
func CheckImage(stages []instructions.Stage) error {
	var problems []error
	earlier := []string{}
	for _, stage := range stages {
		for _, command := range stage.Commands {
			if it, ok := command.(*instructions.CopyCommand); ok && it.From != "" && !slices.Contains(earlier, it.From) {
				problems = append(problems, fmt.Errorf("there is no stage %s before %q", it.From, it))
			}
		}
		earlier = append(earlier, stage.Name)
	}
	last := stages[len(stages)-1]
	if user := find[*instructions.UserCommand](last); user == nil || !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user.User) {
		problems = append(problems, errors.New("the user is not a number other than 0, and a group"))
	}
	if find[*instructions.HealthCheckCommand](last) == nil {
		problems = append(problems, errors.New("there is no health check"))
	}
	// A shell in between would not pass SIGTERM on.
	if entry := find[*instructions.EntrypointCommand](last); entry == nil || entry.PrependShell {
		problems = append(problems, errors.New("the entry point is not a list"))
	}
	return errors.Join(problems...)
}

// Label returns a label of an image.
func Label(stage instructions.Stage, key string) string {
	for _, command := range stage.Commands {
		if it, ok := command.(*instructions.LabelCommand); ok {
			for _, label := range it.Labels {
				if label.Key == key {
					// Quotes go only when the image is built.
					return strings.Trim(label.Value, `"`)
				}
			}
		}
	}
	return ""
}

// The only instruction of its kind in a stage.
func find[T instructions.Command](stage instructions.Stage) (found T) {
	for _, command := range stage.Commands {
		if it, ok := command.(T); ok {
			found = it
		}
	}
	return found
}

// Ignored returns those of some paths that a .dockerignore keeps from the builder.
func Ignored(file io.Reader, paths []string) ([]string, error) {
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	var ignored []string
	for _, path := range paths {
		isIgnored, err := matcher.MatchesOrParentMatches(path)
		if err != nil {
			return nil, err
		}
		if isIgnored {
			ignored = append(ignored, path)
		}
	}
	return ignored, nil
}
