package check

import (
	"fmt"
	"regexp"
	"slices"
)

var variable = regexp.MustCompile(`\bTRUNKLINE_[A-Z_]+\b`)

// UnknownVariables returns the variables that a text names, and that a broker does not read: those
// that its documentation does not have.
func UnknownVariables(text, documentation []byte) []string {
	known := variable.FindAllString(string(documentation), -1)
	unknown := slices.DeleteFunc(variable.FindAllString(string(text), -1), func(name string) bool {
		return slices.Contains(known, name)
	})
	slices.Sort(unknown)
	return slices.Compact(unknown)
}

// DocumentedDefault returns the default of a flag as its documentation has it.
func DocumentedDefault(flag string, documentation []byte) (string, error) {
	row := regexp.MustCompile("(?m)^\\| `" + flag + "` \\|[^|]*\\| `([^`]*)` \\|")
	found := row.FindSubmatch(documentation)
	if found == nil {
		return "", fmt.Errorf("the documentation has no default of %s", flag)
	}
	return string(found[1]), nil
}
