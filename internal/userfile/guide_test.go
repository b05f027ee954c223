package userfile_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/watchword-auth/watchword/internal/userfile"
)

// The files that the guide shows can be imported, and are the same users in both forms.
func TestExamplesInTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/pages.md")
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?s)```(csv|json)\n(.*?)```")
	for _, m := range fence.FindAllSubmatch(guide, -1) {
		rows, err := userfile.Parse(m[2])
		if err != nil || len(rows) != 2 {
			t.Fatalf("%s: %d rows, %v", m[1], len(rows), err)
		}
		for i, want := range []string{"alice", "bob"} {
			if rows[i].Wrong != nil || rows[i].Username != want || rows[i].Disabled != (want == "bob") || rows[i].Groups[0] != "Crew" {
				t.Errorf("%s: %+v", m[1], rows[i])
			}
		}
	}
	if n := len(fence.FindAll(guide, -1)); n != 2 {
		t.Errorf("the guide has %d examples", n)
	}
}
