package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/web/page"
)

// A notice is something that an administrator should know at once.
type notice struct {
	Kind       page.BadgeKind // page.Bad or page.Caution
	Title      string         // what is wrong
	Text       string         // why, and what to do
	Href, Link string         // where to do it; may be empty
}

// maxNotices is how many are shown: whoever has more begins with these.
const maxNotices = 12

// word says how urgent a notice is.
func (n notice) word() string {
	if n.Kind == page.Bad {
		return "Problem"
	}
	return "Look"
}

// sorted puts the problems first.
func sorted(list []notice) []notice {
	slices.SortStableFunc(list, func(a, b notice) int { return strings.Compare(string(a.Kind), string(b.Kind)) }) // bad, caution
	return list
}

// headline says how much needs attention.
func headline(list []notice) string {
	bad := 0
	for _, n := range list {
		if n.Kind == page.Bad {
			bad++
		}
	}
	switch {
	case bad == 0 && len(list) == 1:
		return "One thing to look at"
	case bad == 0:
		return fmt.Sprintf("%d things to look at", len(list))
	case bad == 1:
		return "One problem needs attention"
	}
	return fmt.Sprintf("%d problems need attention", bad)
}

// leadsTo reports whether the visitor may see a page of the navigation.
func (v *visit) leadsTo(path string) bool {
	return slices.ContainsFunc(v.nav(), func(n page.NavItem) bool { return n.Href == path })
}

// lasting writes a length of time for people, with two digits or so.
func lasting(d time.Duration) string {
	d = d.Abs()
	switch {
	case d == 0:
		return "0 ms"
	case d < time.Millisecond:
		return "under 1 ms"
	case d < 10*time.Millisecond:
		return tenths(d.Seconds()*1000) + " ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 10*time.Second:
		return tenths(d.Seconds()) + " s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f minutes", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

func tenths(x float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0") }

// counted writes how many things there are.
func counted(v *page.Visit, n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return v.Number(int(n)) + " " + many
}

// enumerated joins names: "a, b and c".
func enumerated(names []string) string {
	const most = 4
	if len(names) > most {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most-1], ", "), len(names)-most+1)
	}
	if len(names) < 2 {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
