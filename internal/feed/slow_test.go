package feed

import (
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// Clients that ask for pages and never read them must fit into memory.
func TestFeedPagesHoldLittle(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	n.revokeAll(t, "", 2*feedPage)
	server := testenv.StartHTTP2(t, n.Config.Handler)
	const streams = 200
	before := testenv.Heap()
	testenv.DialZeroWindow(t, server).Ask(t, streams, "/api/revocations?limit=10000")
	if held := testenv.Heap() - before; held > streams*(100<<10) {
		t.Errorf("%d answers that nobody reads hold %d KiB", streams, held>>10)
	}
}
