package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
)

// The page of the audit trail says whether it is what was sealed, and never more than is known.
func TestChainOnThePage(t *testing.T) {
	at := time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC)
	for name, tt := range map[string]struct {
		status audit.Status
		want   string
	}{
		"no key":      {audit.Status{}, "Not sealed"},
		"not checked": {audit.Status{Sealing: true}, "Not checked yet"},
		"holds":       {audit.Status{Sealing: true, Newest: audit.Head{Seq: 9}, At: at, CheckedAt: at, Checked: audit.Report{Events: 1, Seals: 9}}, "As it was sealed"},
		"changed":     {audit.Status{Sealing: true, CheckedAt: at, Checked: audit.Report{Found: 1, Problems: []audit.Problem{{Text: "<b>event 1</b> is gone"}}}}, "Changed since it was sealed"},
		"a seal gone": {audit.Status{Sealing: true, Faults: 1}, "Changed since it was sealed"},
	} {
		var b strings.Builder
		if err := chain(tt.status).Render(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"Not sealed", "Not checked yet", "As it was sealed", "Changed since it was sealed"} {
			if strings.Contains(b.String(), text) != (text == tt.want) {
				t.Errorf("%s: %s", name, b.String())
			}
		}
		switch name {
		case "holds":
			if !strings.Contains(b.String(), "1 event in 9 seals") || !strings.Contains(b.String(), "Newest seal: 9") {
				t.Error(b.String())
			}
		case "changed":
			if !strings.Contains(b.String(), "<li>&lt;b&gt;event 1&lt;/b&gt; is gone</li>") {
				t.Error(b.String())
			}
		}
	}
}
