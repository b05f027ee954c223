package browser

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
)

// A record is what a tab has loaded, and what went wrong in it. The goroutine that reads the
// events of the tab writes it, and the test reads it.
type record struct {
	mu        sync.Mutex
	changed   chan struct{} // closed at the next change
	frame     cdp.FrameID   // of the page itself
	loader    cdp.LoaderID  // of the document that came last
	loaded    cdp.LoaderID  // of the document that has come to its end last
	requests  map[network.RequestID]*request
	order     []*request
	problems  []string
	tolerated []*regexp.Regexp
}

// A request is one that the page made, or that brought it.
type request struct {
	method, url string
	kind        network.ResourceType
	loader      cdp.LoaderID
	frame       cdp.FrameID
	status      int64
	header      map[string]string // with names in lower case
	bytes       float64
	cached      bool
	ended       bool
}

func newRecord() *record {
	return &record{changed: make(chan struct{}), requests: make(map[network.RequestID]*request)}
}

// note takes in an event.
func (r *record) note(event any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := event.(type) {
	case *page.EventFrameNavigated:
		if e.Frame.ParentID == "" {
			r.frame, r.loader = e.Frame.ID, e.Frame.LoaderID
			if e.Type == page.NavigationTypeBackForwardCacheRestore { // it was loaded before
				r.loaded = r.loader
			}
		}
	case *page.EventLifecycleEvent:
		if e.FrameID == r.frame && e.Name == "load" {
			r.loaded = e.LoaderID
		}
	case *page.EventJavascriptDialogOpening:
		if e.Type != page.DialogTypeBeforeunload {
			r.problemLocked("dialog (%s): %s", e.Type, e.Message)
		}
	case *network.EventRequestWillBeSent:
		r.noteRequestLocked(e)
	case *network.EventRequestServedFromCache:
		if q := r.requests[e.RequestID]; q != nil {
			q.cached = true
		}
	case *network.EventResponseReceived:
		r.noteResponseLocked(e)
	case *network.EventLoadingFinished:
		if q := r.requests[e.RequestID]; q != nil {
			q.ended = true
			q.bytes += e.EncodedDataLength
		}
	case *network.EventLoadingFailed:
		r.noteFailureLocked(e)
	case *log.EventEntryAdded:
		// What the network says is seen at the requests.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			r.problemLocked("%s: %s", e.Entry.Source, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		r.problemLocked("error of a script: %s", exceptionText(e.ExceptionDetails))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			r.problemLocked("console: %s", consoleText(e.Args))
		}
	default:
		return
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *record) noteRequestLocked(e *network.EventRequestWillBeSent) {
	q := &request{method: e.Request.Method, url: e.Request.URL, kind: e.Type, loader: e.LoaderID, frame: e.FrameID}
	if before := r.requests[e.RequestID]; before != nil && e.RedirectResponse != nil {
		q.bytes = before.bytes + e.RedirectResponse.EncodedDataLength
	} else {
		r.order = append(r.order, q)
	}
	if before := r.requests[e.RequestID]; before != nil {
		for i, o := range r.order {
			if o == before {
				r.order[i] = q
			}
		}
	}
	r.requests[e.RequestID] = q
	if foreign(e.Request.URL, e.DocumentURL, e.Type) {
		r.problemLocked("request to another origin: %s %s by %s", q.method, q.url, e.DocumentURL)
	}
}

// foreign reports whether a page asks another origin than its own, or a navigation leaves this
// machine.
func foreign(address, document string, kind network.ResourceType) bool {
	u, err := url.Parse(address)
	if err != nil {
		return true
	}
	if u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "ws" && u.Scheme != "wss" {
		return false // data:, blob:, about:
	}
	if kind == network.ResourceTypeDocument {
		host := u.Hostname()
		return host != "localhost" && host != "127.0.0.1" && !strings.HasSuffix(host, ".localhost") && !strings.HasSuffix(host, ".test")
	}
	d, err := url.Parse(document)
	return err != nil || u.Host != d.Host
}

func (r *record) noteResponseLocked(e *network.EventResponseReceived) {
	q := r.requests[e.RequestID]
	if q == nil {
		return
	}
	q.status, q.header = e.Response.Status, make(map[string]string)
	q.cached = q.cached || e.Response.FromDiskCache || e.Response.FromPrefetchCache
	var headers map[string]any
	if b, err := json.Marshal(e.Response.Headers); err == nil {
		_ = json.Unmarshal(b, &headers)
	}
	for name, value := range headers {
		q.header[strings.ToLower(name)] = fmt.Sprint(value)
	}
	switch q.kind {
	case network.ResourceTypeStylesheet, network.ResourceTypeScript, network.ResourceTypeImage, network.ResourceTypeFont, network.ResourceTypeManifest:
		if q.status >= 400 {
			r.problemLocked("%s %s: %d", q.method, q.url, q.status)
		}
	}
}

func (r *record) noteFailureLocked(e *network.EventLoadingFailed) {
	address := ""
	if q := r.requests[e.RequestID]; q != nil {
		q.ended, address = true, q.method+" "+q.url
	}
	switch {
	case e.BlockedReason != "":
		r.problemLocked("%s: blocked (%s)", address, e.BlockedReason)
	case !e.Canceled && e.ErrorText != "net::ERR_ABORTED": // these are of pages that were left
		r.problemLocked("%s: %s", address, e.ErrorText)
	}
}

func (r *record) problemLocked(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, t := range r.tolerated {
		if t.MatchString(text) {
			return
		}
	}
	r.problems = append(r.problems, text)
}

// take returns the problems so far, and forgets them.
func (r *record) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.problems
	r.problems = nil
	return taken
}

// problemsNow are the problems so far.
func (r *record) problemsNow() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.problems)
}

func (r *record) tolerate(pattern *regexp.Regexp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tolerated = append(r.tolerated, pattern)
	var left []string
	for _, p := range r.problems {
		if !pattern.MatchString(p) {
			left = append(left, p)
		}
	}
	r.problems = left
}

// last is the loader of the document that has come to its end last.
func (r *record) last() cdp.LoaderID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loaded
}

// document is the request that brought the document that was loaded last, nil if none did.
func (r *record) document() *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.order) - 1; i >= 0; i-- {
		if q := r.order[i]; q.kind == network.ResourceTypeDocument && q.loader == r.loaded && q.frame == r.frame {
			c := *q
			return &c
		}
	}
	return nil
}

// await waits until the record is as it should be, and reports whether it came to be so.
func (r *record) await(happened func() bool) bool {
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		done, changed := happened(), r.changed
		r.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-deadline:
			return false
		}
	}
}

// ofDocumentLocked are the requests of the document that was loaded last, without streams,
// which have no end.
func (r *record) ofDocumentLocked() (all []*request) {
	for _, q := range r.order {
		if q.loader == r.loaded && q.kind != network.ResourceTypeEventSource && q.kind != network.ResourceTypeWebSocket {
			all = append(all, q)
		}
	}
	return all
}

func exceptionText(d *runtime.ExceptionDetails) string {
	if d.Exception != nil && d.Exception.Description != "" {
		return d.Exception.Description
	}
	return d.Text
}

func consoleText(args []*runtime.RemoteObject) string {
	var parts []string
	for _, a := range args {
		var s string
		switch {
		case a.Description != "":
			s = a.Description
		case json.Unmarshal(a.Value, &s) != nil:
			s = string(a.Value)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}
