package browser

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// A chromium is a process that the tests share.
type chromium struct {
	command     string
	preferences string // of its profile, as JSON

	once sync.Once
	ctx  context.Context // of the process; nil: it did not start
}

// The shell shows pages as Chromium does, and has no windows, which cost more than twice as much as
// the pages. It has no settings for people and keeps no page to go back to.
const (
	whole = "chromium"
	shell = "chromium-headless-shell"
)

var (
	usual       = chromium{command: shell, preferences: `{}`}
	withHistory = chromium{command: whole, preferences: `{}`}
	// 2 is "block", for all sites. A profile of a test takes it over.
	withoutCookies = chromium{command: whole, preferences: `{"profile":{"default_content_setting_values":{"cookies":2}}}`}
)

// reaper removes a directory when the test process is gone, and Chromium with it. Chromium's
// own children end a moment later, and may write until then.
const reaper = `trap '' INT; read _; cd /; n=0; while [ -e "$1" ] && [ $n -lt 100 ]; do rm -rf "$1"; sleep 0.1; n=$((n+1)); done 2>/dev/null`

func (c *chromium) get(t testing.TB) context.Context {
	t.Helper()
	c.once.Do(func() { c.start(t) })
	if c.ctx == nil {
		t.Fatal("Chromium did not start for an earlier test")
	}
	return c.ctx
}

// start starts the process, which the kernel kills when the test process ends.
func (c *chromium) start(t testing.TB) {
	t.Helper()
	path, err := exec.LookPath(c.command)
	if err != nil {
		t.Fatalf("the tests need Chromium (make tools): %v", err)
	}
	// A Chromium that is killed leaves its sockets there. Their paths must be short.
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	cleaner := exec.Command("sh", "-c", reaper, "reaper", dir)
	if _, err := cleaner.StdinPipe(); err != nil { // it stays open as long as this process lives
		t.Fatal(err)
	}
	if err := cleaner.Start(); err != nil {
		t.Fatal(err)
	}
	go cleaner.Wait()
	profile := filepath.Join(dir, "profile")
	if err := os.MkdirAll(filepath.Join(profile, "Default"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "Default", "Preferences"), []byte(c.preferences), 0o600); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.Env("TMPDIR="+dir),
		chromedp.Flag("disable-gpu", true),
		// Besides what chromedp turns off: a process for each page that may come.
		chromedp.Flag("disable-features", "Translate,BlinkGenPropertyTrees,SpareRendererForSitePerProcess"),
		// A profile needs one for its empty page and those of Watchword. Without a limit it has two.
		chromedp.Flag("renderer-process-limit", "1"),
		chromedp.Flag("no-sandbox", true), // which many containers forbid; it sees the tests' own pages alone
		chromedp.Flag("ignore-certificate-errors", true),
		// Pictures are the same on every machine.
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("font-render-hinting", "none"),
		chromedp.Flag("disable-lcd-text", true),
		chromedp.Flag("lang", "en-US"),
		// It asks the network for nothing.
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-pings", true),
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1"),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator) // it lives as long as the test process
	if err := chromedp.Do(ctx); err != nil {
		stop()
		t.Fatalf("Chromium does not start: %v", err)
	}
	c.ctx = ctx
}
