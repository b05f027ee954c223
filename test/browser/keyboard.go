package browser

import (
	"context"
	"encoding/json"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// named are keys that no text has.
var named = map[string]string{
	"Enter": kb.Enter, "Tab": kb.Tab, "Escape": kb.Escape, "Space": " ", "Backspace": kb.Backspace, "Delete": kb.Delete,
	"ArrowUp": kb.ArrowUp, "ArrowDown": kb.ArrowDown, "ArrowLeft": kb.ArrowLeft, "ArrowRight": kb.ArrowRight,
	"Home": kb.Home, "End": kb.End, "PageUp": kb.PageUp, "PageDown": kb.PageDown,
}

// Press presses keys one after the other: "Enter", "Tab", "Shift+Tab", "Escape", "Space", the
// arrows ("ArrowDown"), or what is typed as it stands.
func (b *Browser) Press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		var err error
		if k == "Shift+Tab" {
			err = b.keys(kb.Tab, chromedp.KeyModifiers(chromedp.ModifierShift))
		} else if n, ok := named[k]; ok {
			err = b.keys(n)
		} else {
			err = b.keys(k)
		}
		if err != nil {
			b.t.Fatalf("pressing %s: %v", k, err)
		}
	}
}

func (b *Browser) keys(keys string, options ...chromedp.KeyOption) error {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, chromedp.KeyEvent(keys, options...))
}

// A Stop is where the Tab key stops.
type Stop struct {
	Role, Name string
	Visible    bool // one sees that it has the focus
}

// stops bounds a walk: a page with more is a trap, or too long for anybody.
const stops = 300

// TabOrder walks from the top of the page by the Tab key until it comes around, and returns
// where it stopped. A page where the focus cannot leave an element fails the test.
func (b *Browser) TabOrder() (order []Stop) {
	b.t.Helper()
	defer b.still()()
	Eval[bool](b, `(document.activeElement.blur(), getSelection().removeAllRanges(), document.body.tabIndex = -1, document.body.focus(), document.body.removeAttribute('tabindex'), true)`)
	var seen []cdp.BackendNodeID
	for range stops {
		b.Press("Tab")
		e, there := b.focused()
		if !there || len(seen) > 0 && e.id == seen[0] {
			return order
		}
		if len(seen) > 0 && e.id == seen[len(seen)-1] {
			b.t.Fatalf("the Tab key does not leave the %s %q\n%s", e.role, e.name, b.Describe())
		}
		seen = append(seen, e.id)
		differs, err := b.on(e, `function() {
			const look = () => {
				const of = (e, pseudo) => {
					const s = getComputedStyle(e, pseudo), outline = s.outlineStyle === 'none' || s.outlineWidth === '0px' || /, 0\)$/.test(s.outlineColor) ? '' : [s.outlineStyle, s.outlineWidth, s.outlineColor, s.outlineOffset].join();
					return [outline, s.boxShadow, s.borderTopColor, s.borderBottomColor, s.borderBottomWidth, s.backgroundColor, s.color, s.textDecorationLine].join(';');
				};
				const all = [of(this), of(this, '::before'), of(this, '::after')];
				for (let e = this.parentElement, n = 0; e && n < 3; e = e.parentElement, n++) all.push(of(e));
				return JSON.stringify([...all, ...[...this.labels ?? []].map(l => of(l))]);
			};
			const with_ = look();
			this.blur();
			const without = look();
			this.focus({preventScroll: true, focusVisible: true});
			return with_ !== without;
		}`)
		if err != nil {
			b.t.Fatal(err)
		}
		order = append(order, Stop{e.role, e.name, string(differs) == "true"})
	}
	b.t.Fatalf("the Tab key stops more than %d times\n%s", stops, b.Describe())
	return nil
}

// focused is the element that has the focus; there is none if it is not in the page.
func (b *Browser) focused() (e element, there bool) {
	b.t.Helper()
	answer := call(b, runtime.Evaluate, runtime.EvaluateParams{Expression: "document.hasFocus() && document.activeElement !== document.body ? document.activeElement : null"})
	if answer.Result.ObjectID == "" {
		return element{}, false
	}
	node := call(b, dom.DescribeNode, dom.DescribeNodeParams{ObjectID: answer.Result.ObjectID})
	alone := false
	tree := call(b, accessibility.GetPartialAXTree, accessibility.GetPartialAXTreeParams{ObjectID: answer.Result.ObjectID, FetchRelatives: &alone})
	e.id = node.Node.BackendNodeID
	if len(tree.Nodes) > 0 {
		e.role, e.name = text(tree.Nodes[0].Role), text(tree.Nodes[0].Name)
	}
	return e, true
}

// Focused is the role and the name of the element that has the focus, empty if none has.
func (b *Browser) Focused() (role, name string) {
	b.t.Helper()
	e, _ := b.focused()
	return e.role, e.name
}

// still stops whatever moves in the page, until the function that it returns is called.
func (b *Browser) still() (undo func()) {
	b.t.Helper()
	const rule = `*, *::before, *::after { animation-duration: 0s !important; animation-delay: 0s !important; animation-iteration-count: 1 !important;
		transition: none !important; scroll-behavior: auto !important; caret-color: transparent !important }`
	css, _ := json.Marshal(rule)
	// A style sheet that a script constructs is nothing that a Content-Security-Policy is about.
	Eval[bool](b, `(globalThis.stillSheet = new CSSStyleSheet(), stillSheet.replaceSync(`+string(css)+`),
		document.adoptedStyleSheets = [...document.adoptedStyleSheets, stillSheet], true)`)
	return func() {
		// The page may be another one by now.
		_, _ = eval[bool](b, `(document.adoptedStyleSheets = document.adoptedStyleSheets.filter(s => s !== globalThis.stillSheet), delete globalThis.stillSheet)`)
	}
}
