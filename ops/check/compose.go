package check

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// ReadCompose returns the project that some files of a folder make up, or what Compose would refuse.
func ReadCompose(folder string, files ...string) (*types.Project, error) {
	var paths []string
	for _, file := range files {
		paths = append(paths, filepath.Join(folder, file))
	}
	options, err := cli.NewProjectOptions(paths, cli.WithWorkingDirectory(folder), cli.WithName("trunkline"))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}

// CheckExposure returns an error if other hosts could use a broker without proving who they are.
func CheckExposure(broker types.ServiceConfig) error {
	if insecure := broker.Environment["TRUNKLINE_INSECURE"]; insecure == nil || *insecure != "true" {
		return nil
	}
	var problems []error
	for _, port := range broker.Ports {
		if port.HostIP != "127.0.0.1" {
			problems = append(problems, fmt.Errorf("port %s of an insecure broker is published on %q", port.Published, port.HostIP))
		}
	}
	return errors.Join(problems...)
}
