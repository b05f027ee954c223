package csvfile

import "strings"

// formula has the characters with which a cell begins that a spreadsheet takes for a formula,
// and would compute: a name such as =HYPERLINK(…) sends the table to whoever wrote it. The wide
// forms count in spreadsheets that are set to Chinese, Japanese or Korean.
const formula = "=+-@\t\r\n＝＋－＠"

// Cell returns the text as a cell: behind an apostrophe, by which a spreadsheet knows a text, if
// it would be a formula otherwise. A text that begins with apostrophes and goes on like a formula
// gets one more, so that Text is the reverse.
func Cell(text string) string {
	if guarded(text) {
		return "'" + text
	}
	return text
}

// Text returns what a cell says that Cell made.
func Text(cell string) string {
	if rest, ok := strings.CutPrefix(cell, "'"); ok && guarded(rest) {
		return rest
	}
	return cell
}

// guarded reports whether Cell puts an apostrophe before the text.
func guarded(text string) bool {
	rest := strings.TrimLeft(text, "'")
	return rest != "" && strings.IndexAny(rest, formula) == 0
}
