package config

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPagesName keeps the name in the bar of a phone. It is in runes.
const maxPagesName = 40

var colorForm = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)

// validate checks the form of what the pages look like. Whether the colors have enough contrast,
// and the logo is a picture, is judged where they are used.
func (p *Pages) validate(v *validator) {
	switch {
	case strings.TrimSpace(p.Name) == "":
		v.problem("pages.name", "it is empty; the pages need a name for this service")
	case utf8.RuneCountInString(p.Name) > maxPagesName:
		v.problem("pages.name", "it is longer than %d characters; make it shorter", maxPagesName)
	case strings.ContainsFunc(p.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		v.problem("pages.name", "it has characters that cannot be shown")
	}
	for _, color := range [][2]string{{"pages.accent", p.Accent}, {"pages.header", p.Header}} {
		if !colorForm.MatchString(color[1]) {
			v.problem(color[0], "a color is written #rrggbb, such as #2454c6")
		}
	}
}
