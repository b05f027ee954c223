package page

import "github.com/a-h/templ"

// A Layout is a whole page.
type Layout struct {
	Title   string
	Narrow  bool // one card in the middle, as of the sign-in
	Nav     []NavItem
	Active  string   // the Href of the item of Nav that the page belongs to
	Live    bool     // the page asks for parts of itself (see Live); htmx is loaded
	Scripts []string // names of assets besides those of every page
	Content templ.Component
	User    string // the name of who is signed in; empty: nobody
}

// A NavItem leads to a part of the pages.
type NavItem struct{ Href, Text string }

func (k *Kit) page(v *Visit, l Layout) templ.Component { return page(v, l, v.takeFlash()) }

// start is where the name of the deployment leads.
func (l Layout) start() string {
	if len(l.Nav) > 0 {
		return l.Nav[0].Href
	}
	return home
}

// htmxConfig has htmx evaluate nothing, take scripts and styles from no answer, ask no other
// server, and keep no page: also what a replica answers by mistake can do no harm.
const htmxConfig = `{"allowEval":false,"allowScriptTags":false,"includeIndicatorStyles":false,"selfRequestsOnly":true,"historyCacheSize":0,"historyEnabled":false}`
