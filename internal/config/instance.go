package config

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

var (
	instanceID    = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	notInstanceID = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// NewInstanceID makes the name of a node that was given none: the host name, as
// far as it fits, and a random part, so that two nodes on one host, or two lives
// of one node, do not share it.
func NewInstanceID(hostname string, random io.Reader) (string, error) {
	var suffix [4]byte
	if _, err := io.ReadFull(random, suffix[:]); err != nil {
		return "", fmt.Errorf("no randomness for the node's name: %w", err)
	}
	host := notInstanceID.ReplaceAllString(hostname, "-")
	host = strings.Trim(host[:min(len(host), 48)], "-")
	return strings.TrimLeft(fmt.Sprintf("%s-%x", host, suffix), "-"), nil
}
