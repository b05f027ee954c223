package config

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// guides are what operators read.
func guides(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	deployment, _ := filepath.Glob("../../docs/deployment/*.md")
	if err != nil || len(files) < 5 || len(deployment) < 5 {
		t.Fatalf("the guides are %v, %v, %v", files, deployment, err)
	}
	files = append(files, deployment...)
	texts := map[string]string{}
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimPrefix(filepath.ToSlash(file), "../../")] = string(text)
	}
	return texts
}

// What the guides show can be copied: it is read without a complaint.
func TestExamplesInTheGuides(t *testing.T) {
	fence := regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```$")
	environ := []string{"DATABASE_URL=postgres://watchword:secret@db/watchword", "REDIS_URL=redis://redis:6379/0", "AUTH_CLUSTER_SECRET=" + strings.Repeat("s", 32),
		"AUTH_STORAGE_KEY=" + strings.Repeat("00", 32), "WATCHWORD_SERVER_PUBLIC_URL=https://auth.example.com",
		"AUTH_JWT_SECRET=" + strings.Repeat("0123456789abcdef", 4), "PKCS11_PIN=4711"}
	read := 0
	for file, text := range guides(t) {
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			example := strings.TrimPrefix(strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n"), "\n")
			if strings.Contains(example, "apiVersion:") || strings.Contains(example, "envoy.") || strings.HasPrefix(example, "claims:") ||
				strings.HasPrefix(example, "services:") || strings.HasPrefix(example, "scrape_configs:") {
				continue // Kubernetes reads it, or Envoy, or it is an init file, or Docker or Prometheus reads it
			}
			if strings.HasPrefix(example, " ") { // a line of the example before it
				example = "cluster:\n  enabled: true\n  discovery: dns\n  secret: ${AUTH_CLUSTER_SECRET}\n" + example
			}
			read++
			if _, err := loadText(example, environ...); err != nil {
				t.Errorf("%s: %v\n%s", file, err, example)
			}
		}
	}
	if read < 5 {
		t.Errorf("only %d examples were found", read)
	}
}

// Every variable that the guides name is read by somebody.
func TestVariablesInTheGuides(t *testing.T) {
	known := []string{pathVariable}
	for _, s := range settings {
		known = append(known, s.Env)
		if s.Alias != "" {
			known = append(known, s.Alias, s.Alias+"_FILE", s.Env+"_FILE")
		}
	}
	compose, err := filepath.Glob("../../deploy/docker/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range compose { // which have variables of their own, and give none of them to a replica
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\$\{(\w+)`).FindAllStringSubmatch(string(text), -1) {
			known = append(known, m[1])
		}
	}
	name := regexp.MustCompile(`\b(WATCHWORD|AUTH)_[A-Z][A-Z0-9_]*[A-Z0-9]`)
	named := 0
	for file, text := range guides(t) {
		for _, variable := range name.FindAllString(text, -1) {
			named++
			if !slices.Contains(known, variable) {
				t.Errorf("%s names %s, which nobody reads", file, variable)
			}
		}
	}
	if named < 50 {
		t.Errorf("only %d variables are named", named)
	}
}
