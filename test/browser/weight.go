package browser

import (
	"github.com/chromedp/cdproto/network"
)

// A Transfer is what one request of a page cost.
type Transfer struct {
	URL      string
	Kind     network.ResourceType // "Document", "Stylesheet", "Script"…
	Status   int
	Encoding string // "gzip", "br", "zstd"; empty: none
	Bytes    int    // of the answer, as they went over the network: compressed, with the headers
	Cached   bool   // it did not go over the network
}

// Weight waits until all requests of the page that was loaded last have ended, but for streams,
// and returns what they cost, with redirects to the page. In a new profile nothing is cached.
func (b *Browser) Weight() (total int, all []Transfer) {
	b.t.Helper()
	ended := b.record.await(func() bool {
		for _, q := range b.record.ofDocumentLocked() {
			if !q.ended {
				return false
			}
		}
		return true
	})
	if !ended {
		b.t.Fatalf("requests of the page do not end\n%s", b.Describe())
	}
	b.record.mu.Lock()
	defer b.record.mu.Unlock()
	for _, q := range b.record.ofDocumentLocked() {
		all = append(all, Transfer{q.url, q.kind, int(q.status), q.header["content-encoding"], int(q.bytes), q.cached})
		total += int(q.bytes)
	}
	return total, all
}
