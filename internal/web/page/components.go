package page

import (
	"cmp"
	"maps"
	"strconv"
	"strings"

	"github.com/a-h/templ"
)

// An Input is a field of a form.
type Input struct {
	Name, Label string
	Value       string // never shown again by PasswordField and CodeField
	Type        string // of Field; empty: text
	// Autocomplete is the one of HTML; empty: off.
	Autocomplete string
	Hint         string // stands under the field
	Error        string // what is wrong with the value; empty: nothing
	Required     bool
	Autofocus    bool
	ReadOnly     bool
	Checked      bool             // of Checkbox
	MaxLength    int              // in characters; 0: no bound
	Min, Max     string           // of a number or a date
	Rows         int              // of TextArea; 0: 4
	Accept       string           // of FileField
	Attributes   templ.Attributes // besides those
}

// ID is the id of the element in the page.
func (in Input) ID() string { return "f-" + in.Name }

// An Option is one of a Select.
type Option struct {
	Value, Text string
	Selected    bool
}

// A Column is one of a Table. With an Href it can be sorted by.
type Column struct {
	Label   string
	Href    string // of the table sorted by this column, the other way round if it is already
	Sorted  string // "ascending", "descending" or empty
	Numeric bool
	Hidden  bool // the label is for screen readers alone, as of a column of buttons
}

// Pages are the neighbours of a page of a long list; empty: there is none.
type Pages struct{ First, Previous, Next string }

// A BadgeKind is how a Badge looks.
type BadgeKind string

// The kinds of badges.
const (
	Neutral BadgeKind = "neutral"
	Good    BadgeKind = "good"
	Caution BadgeKind = "caution"
	Bad     BadgeKind = "bad"
	Accent  BadgeKind = "accent"
)

// A Tab leads to a part of a page.
type Tab struct {
	Href, Text string
	Active     bool
}

// A Confirmation asks before something is done that cannot be undone.
type Confirmation struct {
	Action string // where the form is sent
	Text   string // names the thing, and says what comes of it
	Button string
	Danger bool
	Cancel string            // where the way back leads
	Fields map[string]string // hidden ones that are sent along
}

func (in Input) kind() string {
	if in.Type == "" {
		return "text"
	}
	return in.Type
}

// attributes are those that all fields have.
func (in Input) attributes() templ.Attributes {
	a := templ.Attributes{}
	for name, on := range map[string]bool{"required": in.Required, "autofocus": in.Autofocus, "readonly": in.ReadOnly} {
		if on {
			a[name] = true
		}
	}
	if in.Type != "file" {
		a["autocomplete"] = cmp.Or(in.Autocomplete, "off")
	}
	if in.MaxLength > 0 {
		a["maxlength"] = strconv.Itoa(in.MaxLength)
	}
	if in.Min != "" {
		a["min"] = in.Min
	}
	if in.Max != "" {
		a["max"] = in.Max
	}
	var described []string
	if in.Error != "" {
		described = append(described, in.ID()+"-error")
		a["aria-invalid"] = "true"
	}
	if in.Hint != "" {
		described = append(described, in.ID()+"-hint")
	}
	if len(described) > 0 {
		a["aria-describedby"] = strings.Join(described, " ")
	}
	maps.Copy(a, in.Attributes)
	return a
}

func (in Input) passwordAttributes() templ.Attributes {
	in.Autocomplete = cmp.Or(in.Autocomplete, "current-password")
	return in.attributes()
}

func (in Input) checkAttributes() templ.Attributes {
	a := in.attributes()
	delete(a, "autocomplete")
	return a
}

func (in Input) codeAttributes() templ.Attributes {
	in.Autocomplete = cmp.Or(in.Autocomplete, "one-time-code")
	a := in.attributes()
	if a["inputmode"] == nil {
		a["inputmode"] = "numeric"
	}
	return a
}

func (c Column) sorted() templ.Attributes {
	if c.Sorted == "" {
		return nil
	}
	return templ.Attributes{"aria-sort": c.Sorted}
}

func (t Tab) current() templ.Attributes { return currentPage(t.Active) }

func currentPage(is bool) templ.Attributes {
	if !is {
		return nil
	}
	return templ.Attributes{"aria-current": "page"}
}
