package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// axe is axe-core, as `make tools` installs it.
var axe = sync.OnceValues(func() (string, error) {
	_, here, _, _ := goruntime.Caller(0)
	source, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../interop/stacks/node_modules/axe-core/axe.min.js"))
	return string(source), err
})

// A violation is what axe-core found, as it says it.
type violation struct {
	ID      string
	Impact  string
	Help    string
	HelpURL string
	Nodes   []struct {
		HTML           string
		Target         []any
		FailureSummary string
	}
}

func (v violation) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s (%s): %s\n  %s", v.ID, v.Impact, v.Help, v.HelpURL)
	for _, n := range v.Nodes {
		fmt.Fprintf(&s, "\n  at %v: %.300s\n    %s", n.Target, n.HTML, strings.ReplaceAll(n.FailureSummary, "\n", "\n    "))
	}
	return s.String()
}

// Axe has axe-core judge the page as it is shown now, by WCAG 2.2 A and AA and by its best
// practices, and fails the test for each violation. Rules may be left out by their ids. Scripts
// of pages must be allowed, though a page need not have any.
func Axe(t testing.TB, b *Browser, leftOut ...string) {
	t.Helper()
	b.isFree(t, practices(leftOut))
}

// AxeColours is Axe by the rules about colours alone. It is for a page that Axe has judged in
// another scheme, where nothing but colours differs.
func AxeColours(t testing.TB, b *Browser) {
	t.Helper()
	b.isFree(t, colours)
}

var colours = map[string]any{
	"runOnly":     map[string]any{"type": "rule", "values": []string{"color-contrast", "link-in-text-block"}},
	"resultTypes": violations,
}

// isFree fails the test for each violation that axe-core finds.
func (b *Browser) isFree(t testing.TB, options map[string]any) {
	t.Helper()
	for _, v := range b.axe(options) {
		t.Errorf("axe: %s: %s", b.Path(), v)
	}
}

// violations are what axe-core looks at to the end.
var violations = []string{"violations"}

// practices are the options of axe-core for all rules but those that are left out.
func practices(leftOut []string) map[string]any {
	rules := map[string]any{"target-size": map[string]bool{"enabled": true}} // WCAG 2.2, and not on by itself
	for _, id := range leftOut {
		rules[id] = map[string]bool{"enabled": false}
	}
	return map[string]any{
		"runOnly":     []string{"wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"},
		"rules":       rules,
		"resultTypes": violations,
	}
}

func (b *Browser) axe(options map[string]any) (found []violation) {
	b.t.Helper()
	source, err := axe()
	if err != nil {
		b.t.Fatalf("axe-core (make tools): %v", err)
	}
	defer b.still()()
	// A world of its own: the page's Content-Security-Policy does not hold there, the page's
	// scripts do not see it, and it is gone with the page.
	frame := call(b, page.GetFrameTree, cdp.Empty{}).FrameTree.Frame.ID
	world := call(b, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: frame, WorldName: "axe"}).ExecutionContextID
	chosen, err := json.Marshal(options)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	yes := true
	answer, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{
		Expression: source + "\n;axe.run(document, " + string(chosen) + ").then(r => JSON.stringify(r.violations))",
		ContextID:  world, AwaitPromise: &yes, ReturnByValue: &yes,
	})
	if err == nil && answer.ExceptionDetails != nil {
		err = fmt.Errorf("%s", exceptionText(answer.ExceptionDetails))
	}
	var result string
	if err == nil {
		err = json.Unmarshal(answer.Result.Value, &result)
	}
	if err == nil {
		err = json.Unmarshal([]byte(result), &found)
	}
	if err != nil {
		b.t.Fatalf("axe: %v", err)
	}
	return found
}
