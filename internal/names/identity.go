package names

import (
	"slices"
	"strings"
	"unicode"

	"go.mau.fi/util/confusable"
	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/internal/problem"
)

// Version changes when Looks or Fold return something else for any text, as after an update
// of Unicode's tables. What is kept of them is then made anew.
const Version = 2

// Fold returns what is the same for all ways in which people write one username. The key of
// a username (UsernameKey) is in lower case, and that is not enough: the capitals of "ς" and
// "ß" are those of "σ" and "ss", and "I" is the capital of "ı" for some and of "i" for
// others. So letters are folded as Unicode says (full case folding), and an i is an i with
// or without its dot. Accents count.
//
// A fold is for comparison only. Names may have one fold and two keys: they are from a
// version that compared keys alone.
func Fold(key string) string {
	// In lower case first: package cases swaps the two cases of Cherokee.
	folded := norm.NFD.String(cases.Fold().String(strings.ToLower(norm.NFD.String(key))))
	return norm.NFC.String(strings.ReplaceAll(strings.ReplaceAll(folded, "ı", "i"), "i\u0307", "i"))
}

// Looks returns what a name looks like. Two names that have a look in common are easily
// taken for each other: they have the same skeleton by UTS 39 §4, as they are written or
// folded. White space, commas and what is invisible count for nothing. A name of nothing
// else has no looks.
//
// A look is for comparison only.
func Looks(shown string) []string {
	text := strings.Map(func(c rune) rune {
		if c == ',' || unicode.IsSpace(c) || invisible(c) {
			return -1
		}
		return c
	}, shown)
	if text == "" {
		return nil
	}
	// Case is folded after the skeleton was made, too: 0 looks like O, and O is o.
	written, folded := Fold(confusable.Skeleton(text)), Fold(confusable.Skeleton(Fold(text)))
	return slices.Compact([]string{written, folded})
}

// invisible reports whether a character is not seen by itself: by Unicode it may be ignored
// where it is not known, or it is blank (Braille).
func invisible(c rune) bool {
	return c == '\u2800' || unicode.In(c, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// EmailKey returns the key by which addresses are compared; it is empty for no address.
// Case does not count, in no part of an address: by RFC 5321 §2.4 it may before the @, but
// no provider gives two people addresses that differ in case alone, one letter for one (so
// "ß" is not "ss", as it is for Fold). Domains are compared as IDNA writes them. Dots and
// "+tags" count, because not every provider ignores them.
func EmailKey(address string) string {
	// Upper case first: σ and ς are one letter there.
	folded := strings.ToLower(strings.ToUpper(norm.NFKC.String(address)))
	at := strings.LastIndexByte(folded, '@')
	if at < 0 {
		return folded
	}
	domain, err := idna.Lookup.ToASCII(folded[at+1:])
	if err != nil {
		return folded
	}
	return folded[:at+1] + domain
}

// CheckScripts returns an error if the letters of a new username are of scripts that
// nobody mixes (UTS 39 §5.2, "highly restrictive"): "pаypal" has one Cyrillic letter.
// Latin goes with each of the ways in which Chinese, Japanese and Korean are written.
func CheckScripts(username string) error {
	var found []string
	for _, c := range username {
		if s := scriptOf(c); s != "" && !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	if len(found) <= 1 {
		return nil
	}
	for _, together := range [...][]string{
		{"Latin", "Han", "Hiragana", "Katakana"}, {"Latin", "Han", "Bopomofo"}, {"Latin", "Han", "Hangul"},
	} {
		if !slices.ContainsFunc(found, func(s string) bool { return !slices.Contains(together, s) }) {
			return nil
		}
	}
	return problem.New(problem.Invalid, "username_mixes_scripts",
		"the letters of a username are of one script, such as Latin or Cyrillic; Latin may stand with Chinese, Japanese or Korean")
}

// scriptOf returns the script of a character; it is empty for one that every script uses.
func scriptOf(c rune) string {
	if c < unicode.MaxASCII && !unicode.IsLetter(c) || unicode.In(c, unicode.Common, unicode.Inherited) {
		return ""
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, c) {
			return name
		}
	}
	return "unknown"
}
