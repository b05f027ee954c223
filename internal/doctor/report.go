package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Report is what came of checks.
type Report struct {
	At      time.Time // when they had ended
	Reach   Reach
	Results []Result
}

// Counts are how many checks found something, by what it costs.
type Counts struct {
	Errors   int // checks of errors that found something, or could not look
	Warnings int // the same of warnings
	Advice   int // checks that gave advice
	Unknown  int // checks that could not look, of any severity
}

// Counts counts the checks that found something.
func (r Report) Counts() (c Counts) {
	for _, one := range r.Results {
		if one.Status == Unknown {
			c.Unknown++
		}
		if one.Status != Failed && one.Status != Unknown {
			continue
		}
		switch {
		case one.Severity == Error:
			c.Errors++
		case one.Severity == Warning:
			c.Warnings++
		case one.Status == Failed:
			c.Advice++
		}
	}
	return c
}

// Text writes the report for people: a line for each check, and under it what was seen and what to
// do. What is worst comes last, where a terminal shows it.
func (r Report) Text(w io.Writer) error {
	var b strings.Builder
	results := slices.Clone(r.Results)
	slices.SortStableFunc(results, func(a, b Result) int { return cmp.Compare(a.rank(), b.rank()) })
	for _, one := range results {
		if one.Status == Skipped {
			fmt.Fprintf(&b, "%-8s %s: %s\n", one.word(), one.ID, inLine(one.Reason))
			continue
		}
		fmt.Fprintf(&b, "%-8s %s: %s\n", one.word(), one.ID, one.Title)
		if one.Reason != "" {
			fmt.Fprintf(&b, "         %s\n", inLine(one.Reason))
		}
		for _, f := range one.Findings {
			if f.Subject != "" {
				fmt.Fprintf(&b, "       * %s: %s\n", inLine(f.Subject), inLine(f.Seen))
			} else {
				fmt.Fprintf(&b, "       * %s\n", inLine(f.Seen))
			}
			fmt.Fprintf(&b, "         To mend it: %s\n", inLine(f.Mend))
		}
	}
	c := r.Counts()
	fmt.Fprintf(&b, "\n%d checks: %d with errors, %d with warnings, %d with advice; %d could not look\n", len(r.Results), c.Errors, c.Warnings, c.Advice, c.Unknown)
	_, err := io.WriteString(w, b.String())
	return err
}

// inLine writes a text that may come from elsewhere, such as a replica, without what a terminal
// acts on.
func inLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// word is how a line of the text begins.
func (r Result) word() string {
	if r.Status == Failed {
		return string(r.Severity)
	}
	return string(r.Status)
}

// rank orders what came of checks, the least urgent first.
func (r Result) rank() int {
	return slices.Index([]string{string(Skipped), string(OK), string(Advice), string(Unknown), string(Warning), string(Error)}, r.word())
}

// JSON writes the report for programs.
func (r Report) JSON(w io.Writer) error {
	c := r.Counts()
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(struct {
		At       time.Time `json:"at"`
		Errors   int       `json:"errors"`
		Warnings int       `json:"warnings"`
		Advice   int       `json:"advice"`
		Unknown  int       `json:"unknown"`
		Checks   []Result  `json:"checks"`
	}{r.At.UTC(), c.Errors, c.Warnings, c.Advice, c.Unknown, r.Results})
}
