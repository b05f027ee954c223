package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// In returns the browser for what is inside of the first element that a CSS selector matches.
func (b *Browser) In(selector string) *Browser {
	c := *b
	c.scope = selector
	return &c
}

// fields are the roles of what a person types into or chooses from.
var fields = []string{"textbox", "searchbox", "combobox", "listbox", "checkbox", "radio", "switch", "spinbutton", "slider", "Date", "DateTime", "InputTime", "ColorWell"}

// An element is what a person can point at.
type element struct {
	id         cdp.BackendNodeID
	role, name string
}

var errNone = errors.New("there is none")

// query returns the elements with a name that a screen reader reads out, empty for any name.
func (b *Browser) query(name string) (found []element, err error) {
	root, err := b.root()
	if err != nil {
		return nil, err
	}
	answer, err := tryCall(b, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{ObjectID: root, AccessibleName: name})
	if err != nil {
		return nil, err
	}
	for _, n := range answer.Nodes {
		if !n.Ignored && n.BackendDOMNodeID != 0 {
			found = append(found, element{n.BackendDOMNodeID, text(n.Role), text(n.Name)})
		}
	}
	return found, nil
}

// root is the element of the scope.
func (b *Browser) root() (runtime.RemoteObjectID, error) {
	answer, err := tryCall(b, runtime.Evaluate, runtime.EvaluateParams{Expression: b.rootExpression("document")})
	if err != nil {
		return "", err
	}
	if answer.Result == nil || answer.Result.ObjectID == "" {
		return "", fmt.Errorf("nothing is %s", b.scope)
	}
	return answer.Result.ObjectID, nil
}

// rootExpression is a JavaScript expression for the element of the scope.
func (b *Browser) rootExpression(whole string) string {
	if b.scope == "" {
		return whole
	}
	return fmt.Sprintf("document.querySelector(%s)", quote(b.scope))
}

func quote(s string) string {
	b, _ := json.Marshal(s) // a string has a JSON form
	return string(b)
}

func text(v *accessibility.Value) string {
	var s string
	if v != nil {
		_ = json.Unmarshal(v.Value, &s) // what is no string is no name
	}
	return s
}

// find waits until one thing is there, and acts on it. A page may change between the two.
func (b *Browser) find(what string, look func() ([]element, error), act func(element) error) {
	b.t.Helper()
	b.insist(what, func() error {
		found, err := look()
		switch {
		case err != nil:
			return err
		case len(found) == 0:
			return errNone
		case len(found) > 1:
			return fmt.Errorf("there are %d; In says which", len(found))
		}
		return act(found[0])
	})
}

// insist does something until it succeeds.
func (b *Browser) insist(what string, f func() error) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: %v\n%s", what, err, b.Describe())
		}
		time.Sleep(wait) // until the page is asked again; it has no event for this
	}
}

func (b *Browser) byRole(role, name string) func() ([]element, error) {
	return func() ([]element, error) {
		found, err := b.query(name)
		return slices.DeleteFunc(found, func(e element) bool { return e.role != role }), err
	}
}

// byField finds a field by its label, or else by its name in the form.
func (b *Browser) byField(name string) func() ([]element, error) {
	return func() ([]element, error) {
		found, err := b.query(name)
		found = slices.DeleteFunc(found, func(e element) bool { return !slices.Contains(fields, e.role) })
		if err != nil || len(found) > 0 {
			return found, err
		}
		byName := `[name=` + quote(name) + `]:not([type=hidden])`
		answer, err := tryCall(b, runtime.Evaluate, runtime.EvaluateParams{
			Expression: fmt.Sprintf("(%s)?.querySelector(%s)", b.rootExpression("document"), quote(byName))})
		if err != nil || answer.Result == nil || answer.Result.ObjectID == "" {
			return nil, err
		}
		node, err := tryCall(b, dom.DescribeNode, dom.DescribeNodeParams{ObjectID: answer.Result.ObjectID})
		if err != nil {
			return nil, err
		}
		return []element{{node.Node.BackendNodeID, "field", name}}, nil
	}
}

// Fill types a text into a field with a label (or, where no label matches, with a name in its
// form), in place of what is there. What has no text, such as a date, gets the value.
func (b *Browser) Fill(field, value string) {
	b.t.Helper()
	b.find("the field "+field, b.byField(field), func(e element) error {
		typed, err := b.on(e, `function(value) {
			if (this.disabled || this.readOnly) throw new Error('it cannot be changed');
			if (this.matches('input[type=date], input[type=time], input[type=datetime-local], input[type=month], input[type=color], input[type=range]')) {
				this.value = value;
				this.dispatchEvent(new Event('input', {bubbles: true}));
				this.dispatchEvent(new Event('change', {bubbles: true}));
				return false;
			}
			this.scrollIntoView({block: 'nearest'});
			this.focus();
			this.select();
			return true;
		}`, value)
		if err != nil || string(typed) != "true" {
			return err
		}
		if value == "" {
			return b.keys(kb.Backspace)
		}
		_, err = tryCall(b, input.InsertText, input.InsertTextParams{Text: value})
		return err
	})
}

// Value is what stands in a field, and "true" or "false" for a box.
func (b *Browser) Value(field string) (value string) {
	b.t.Helper()
	b.find("the field "+field, b.byField(field), func(e element) error {
		got, err := b.on(e, `function() { return this.matches('[type=checkbox], [type=radio]') ? String(this.checked) : this.value }`)
		if err != nil {
			return err
		}
		return json.Unmarshal(got, &value)
	})
	return value
}

// Choose chooses an option, by what it says, of a select element.
func (b *Browser) Choose(field, option string) {
	b.t.Helper()
	b.find("the field "+field, b.byField(field), func(e element) error {
		_, err := b.on(e, `function(text) {
			const option = [...this.options].find(o => o.label.trim() === text && !o.disabled);
			if (!option) throw new Error('it offers ' + [...this.options].map(o => o.label.trim()).join(', '));
			this.focus();
			option.selected = true;
			this.dispatchEvent(new Event('input', {bubbles: true}));
			this.dispatchEvent(new Event('change', {bubbles: true}));
		}`, option)
		return err
	})
}

// Check ticks a box, or chooses one of several, by a click.
func (b *Browser) Check(field string, ticked bool) {
	b.t.Helper()
	b.find("the box "+field, b.byField(field), func(e element) error {
		is, err := b.on(e, `function() { return this.checked }`)
		if err != nil || string(is) == fmt.Sprint(ticked) {
			return err
		}
		return b.clickOn(e, 1)
	})
}

// Upload gives a file to the file field with a name in its form.
func (b *Browser) Upload(name, path string) {
	b.t.Helper()
	b.find("the field "+name, b.byField(name), func(e element) error {
		_, err := tryCall(b, dom.SetFileInputFiles, dom.SetFileInputFilesParams{Files: []string{path}, BackendNodeID: e.id})
		return err
	})
}

// Click clicks what has a role ("button", "link", "tab", "checkbox"…) and a name.
func (b *Browser) Click(role, name string) {
	b.t.Helper()
	b.find(fmt.Sprintf("the %s %q", role, name), b.byRole(role, name), func(e element) error { return b.clickOn(e, 1) })
}

// DoubleClick clicks twice, as fast as a machine can.
func (b *Browser) DoubleClick(role, name string) {
	b.t.Helper()
	b.find(fmt.Sprintf("the %s %q", role, name), b.byRole(role, name), func(e element) error { return b.clickOn(e, 2) })
}

// Follow clicks, and waits until the next document is loaded.
func (b *Browser) Follow(role, name string) {
	b.t.Helper()
	b.Navigates(func() { b.t.Helper(); b.Click(role, name) })
}

// Navigates does something, and waits until the document that comes of it is loaded.
func (b *Browser) Navigates(f func()) {
	b.t.Helper()
	before := b.record.last()
	f()
	if !b.record.await(func() bool { return b.record.loaded != before && b.record.loaded == b.record.loader }) {
		b.t.Fatalf("no other page came\n%s", b.Describe())
	}
}

// Back goes back, as the browser's own button does.
func (b *Browser) Back() {
	b.t.Helper()
	history := call(b, page.GetNavigationHistory, cdp.Empty{})
	if history.CurrentIndex < 1 {
		b.t.Fatalf("there is no page to go back to\n%s", b.Describe())
	}
	b.Navigates(func() {
		b.t.Helper()
		call(b, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: history.Entries[history.CurrentIndex-1].ID})
	})
}

// Reload loads the page again, and sends a form again that brought it.
func (b *Browser) Reload() {
	b.t.Helper()
	b.Navigates(func() { b.t.Helper(); call(b, page.Reload, page.ReloadParams{}) })
}

// middle is the middle of an element, where nothing may cover it.
func (b *Browser) middle(e element) (point [2]float64, err error) {
	at, err := b.on(e, `function() {
		if (this.disabled) throw new Error('it is disabled');
		this.scrollIntoView({block: 'center', inline: 'nearest', behavior: 'instant'});
		const r = this.getClientRects()[0];
		if (!r) throw new Error('it is not shown');
		const x = r.x + r.width / 2, y = r.y + r.height / 2, hit = document.elementFromPoint(x, y);
		const label = hit && hit.closest('label');
		if (!hit || !this.contains(hit) && !hit.contains(this) && !(label && label.control === this)) throw new Error('it is covered by ' + (hit ? hit.outerHTML.slice(0, 200) : 'nothing'));
		return [x, y];
	}`)
	if err != nil {
		return point, err
	}
	err = json.Unmarshal(at, &point)
	return point, err
}

// clickOn clicks in the middle of an element that does not move.
func (b *Browser) clickOn(e element, times int64) error {
	point, err := b.middle(e)
	if err != nil {
		return err
	}
	move := input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseMoved, X: point[0], Y: point[1]}
	if _, err := tryCall(b, input.DispatchMouseEvent, move); err != nil {
		return err
	}
	if again, err := b.middle(e); err != nil || again != point {
		return errors.Join(errors.New("it moves"), err)
	}
	missed, err := b.watchClicks(e)
	if err != nil {
		return err
	}
	for n := range times {
		for _, kind := range []input.DispatchMouseEventType{input.DispatchMouseEventTypeMousePressed, input.DispatchMouseEventTypeMouseReleased} {
			p := input.DispatchMouseEventParams{Type: kind, X: point[0], Y: point[1], Button: input.MouseButtonLeft, Buttons: 1, ClickCount: n + 1}
			if _, err := tryCall(b, input.DispatchMouseEvent, p); err != nil {
				b.t.Fatalf("clicking the %s %q: %v", e.role, e.name, err) // once more could be once too often
			}
		}
	}
	if missed() {
		return errors.New("it has moved away from under the mouse")
	}
	return nil
}

// watchClicks returns a function that reports whether no click has come to an element since, as when
// a script moves it at that moment. A page that has been left, or runs no scripts, misses none.
func (b *Browser) watchClicks(e element) (missed func() bool, err error) {
	if b.look.noScripts {
		return func() bool { return false }, nil
	}
	node, err := tryCall(b, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: e.id})
	if err != nil {
		return nil, err
	}
	answer, err := tryCall(b, runtime.CallFunctionOn, runtime.CallFunctionOnParams{ObjectID: node.Object.ObjectID, FunctionDeclaration: `function() {
		const seen = {clicks: 0};
		addEventListener('click', e => {
			const label = e.target.closest?.('label');
			if (this.contains(e.target) || label && label.control === this) seen.clicks++;
		}, {capture: true});
		return seen;
	}`})
	if err != nil {
		return nil, err
	}
	if answer.ExceptionDetails != nil {
		return nil, errors.New(exceptionText(answer.ExceptionDetails))
	}
	return func() bool {
		byValue := true
		got, err := tryCall(b, runtime.CallFunctionOn, runtime.CallFunctionOnParams{ObjectID: answer.Result.ObjectID, FunctionDeclaration: `function() { return this.clicks }`, ReturnByValue: &byValue})
		return err == nil && got.Result != nil && string(got.Result.Value) == "0"
	}, nil
}

// on calls a JavaScript function with an element as this, and returns what it returns as JSON.
// It works also where scripts of pages do not run.
func (b *Browser) on(e element, function string, args ...any) (json.RawMessage, error) {
	node, err := tryCall(b, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: e.id})
	if err != nil {
		return nil, err
	}
	byValue := true
	p := runtime.CallFunctionOnParams{FunctionDeclaration: function, ObjectID: node.Object.ObjectID, ReturnByValue: &byValue, UserGesture: &byValue}
	for _, a := range args {
		value, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		p.Arguments = append(p.Arguments, &runtime.CallArgument{Value: value})
	}
	answer, err := tryCall(b, runtime.CallFunctionOn, p)
	if err != nil {
		return nil, err
	}
	if answer.ExceptionDetails != nil {
		return nil, errors.New(exceptionText(answer.ExceptionDetails))
	}
	return json.RawMessage(answer.Result.Value), nil
}

// Eval is the value of a JavaScript expression in the page.
func Eval[T any](b *Browser, expression string) T {
	b.t.Helper()
	v, err := eval[T](b, expression)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", expression, err, b.Describe())
	}
	return v
}

func eval[T any](b *Browser, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression))
}

// Until waits until a JavaScript expression is true in the page.
func (b *Browser) Until(expression string) {
	b.t.Helper()
	b.insist(expression, func() error {
		if is, err := eval[bool](b, "!!("+expression+")"); err != nil || !is {
			return errors.Join(errors.New("it is not so"), err)
		}
		return nil
	})
}

// Text is the visible text of the page, with one space for each gap, empty where nothing is.
func (b *Browser) Text() string {
	b.t.Helper()
	return Eval[string](b, b.textExpression())
}

func (b *Browser) textExpression() string {
	return fmt.Sprintf("((%s)?.innerText ?? '').split(/\\s+/).filter(Boolean).join(' ')", b.rootExpression("document.body"))
}

// Sees waits until the page shows texts.
func (b *Browser) Sees(texts ...string) {
	b.t.Helper()
	for _, want := range texts {
		b.insist(fmt.Sprintf("the page to show %q", want), func() error {
			got, err := eval[string](b, b.textExpression())
			if err == nil && !strings.Contains(got, strings.Join(strings.Fields(want), " ")) {
				err = errors.New("it does not")
			}
			return err
		})
	}
}

// SeesNot fails if the page shows one of the texts now.
func (b *Browser) SeesNot(texts ...string) {
	b.t.Helper()
	got := b.Text()
	for _, not := range texts {
		if strings.Contains(got, strings.Join(strings.Fields(not), " ")) {
			b.t.Errorf("the page shows %q\n%s", not, b.Describe())
		}
	}
}

// Has reports whether something with a role and a name is there now.
func (b *Browser) Has(role, name string) bool {
	b.t.Helper()
	found, err := b.byRole(role, name)()
	return err == nil && len(found) > 0
}

// Names are the names of all that has a role, in the order of the page.
func (b *Browser) Names(role string) (names []string) {
	b.t.Helper()
	found, err := b.all()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range found {
		if e.role == role {
			names = append(names, e.name)
		}
	}
	return names
}

// all are the elements of the page; those of a scope are not told from the others.
func (b *Browser) all() (found []element, err error) {
	tree, err := tryCall(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		return nil, err
	}
	for _, n := range tree.Nodes {
		if !n.Ignored && n.BackendDOMNodeID != 0 {
			found = append(found, element{n.BackendDOMNodeID, text(n.Role), text(n.Name)})
		}
	}
	return found, nil
}

// URL is the address of the page.
func (b *Browser) URL() string {
	b.t.Helper()
	return Eval[string](b, "location.href")
}

// Path is the address of the page, without its origin.
func (b *Browser) Path() string {
	b.t.Helper()
	return Eval[string](b, "location.href.slice(location.origin.length)")
}

// Status is the status that the page was answered with.
func (b *Browser) Status() int {
	if d := b.record.document(); d != nil {
		return int(d.status)
	}
	return 0
}

// Header is a header of the answer that brought the page.
func (b *Browser) Header(name string) string {
	if d := b.record.document(); d != nil {
		return d.header[strings.ToLower(name)]
	}
	return ""
}

// Describe is the page in words, for a failure.
func (b *Browser) Describe() string {
	whole := *b
	whole.scope = ""
	title, _ := eval[string](b, "document.title")
	address, _ := eval[string](b, "location.href")
	shown, err := eval[string](b, "(document.body?.innerText ?? '').slice(0, 3000)")
	if err != nil {
		shown = err.Error()
	}
	var s strings.Builder
	fmt.Fprintf(&s, "title: %s\nurl: %s (%d)\n", title, address, b.Status())
	if found, err := whole.all(); err == nil {
		for _, e := range found {
			if e.role == "button" || e.role == "link" || slices.Contains(fields, e.role) {
				fmt.Fprintf(&s, "  %s %q\n", e.role, e.name)
			}
		}
	}
	for _, p := range b.record.problemsNow() {
		fmt.Fprintf(&s, "problem: %s\n", p)
	}
	fmt.Fprintf(&s, "text:\n%s", shown)
	return s.String()
}

// tryCall is call for what may fail.
func tryCall[P, R any](b *Browser, command cdp.Command[P, R], params P) (R, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Call(ctx, command, params)
}
