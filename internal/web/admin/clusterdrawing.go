package admin

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// A drawing has each replica as a node, and between two of them who sees whose keys.
type drawing struct {
	Nodes []node
	Edges []edge
	Box   string // the part of the drawing in which something is
}

type node struct {
	X, Y    string
	Class   string
	Sign    string // so that color is not all that tells
	Name    string // shortened
	LabelY  string
	Here    bool
	Silent  bool
	Summary string
}

type edge struct {
	X1, Y1, X2, Y2 string
	Class          string
	Summary        string
}

// The drawing is in these units; it is as wide as the card, and no wider than this.
const (
	drawingWidth  = 480.0
	drawingHeight = 300.0
	nodeRadius    = 24.0
	// maxDrawn is how many replicas are drawn: of more, nobody could tell the lines apart.
	maxDrawn = 12
)

// drawing places the replicas on an ellipse, or in a row if they are few.
func (p clusterPage) drawing() drawing {
	var d drawing
	drawn := p.Replicas[:min(len(p.Replicas), maxDrawn)]
	at := func(i int) (x, y float64) {
		n := len(drawn)
		if n <= 2 {
			return drawingWidth * float64(2*i+1) / float64(2*n), drawingHeight / 2
		}
		angle := 2*math.Pi*float64(i)/float64(n) - math.Pi/2
		return drawingWidth/2 + (drawingWidth/2-80)*math.Cos(angle), drawingHeight/2 - 8 + (drawingHeight/2-52)*math.Sin(angle)
	}
	for i, a := range drawn {
		for j, b := range drawn[:i] {
			x1, y1 := at(i)
			x2, y2 := at(j)
			e := edge{coordinate(x1), coordinate(y1), coordinate(x2), coordinate(y2), "seen", fmt.Sprintf("%s and %s have each other's keys", b.Instance, a.Instance)}
			switch {
			case a.Standing != cluster.Live || b.Standing != cluster.Live:
				e.Class, e.Summary = "away", fmt.Sprintf("%s and %s: not both are heard", b.Instance, a.Instance)
			case slices.Contains(a.Behind, b.Instance) && slices.Contains(b.Behind, a.Instance):
				e.Class, e.Summary = "unseen-keys", fmt.Sprintf("%s and %s lack each other's newest keys", b.Instance, a.Instance)
			case slices.Contains(a.Behind, b.Instance):
				e.Class, e.Summary = "unseen-keys", fmt.Sprintf("%s lacks the newest key of %s", a.Instance, b.Instance)
			case slices.Contains(b.Behind, a.Instance):
				e.Class, e.Summary = "unseen-keys", fmt.Sprintf("%s lacks the newest key of %s", b.Instance, a.Instance)
			}
			d.Edges = append(d.Edges, e)
		}
	}
	top, bottom := drawingHeight, 0.0
	for i, r := range drawn {
		x, y := at(i)
		label := y + nodeRadius + 18
		if r.Here {
			label += 8 // under the halo
		}
		top, bottom = min(top, y-nodeRadius-12), max(bottom, label+12)
		d.Nodes = append(d.Nodes, node{
			X: coordinate(x), Y: coordinate(y), LabelY: coordinate(label), Class: "node " + string(r.Kind), Sign: sign(r.Kind),
			Name: middle(r.Instance, 18), Here: r.Here, Silent: r.Standing != cluster.Live,
			Summary: r.Instance + ": " + r.Word,
		})
	}
	d.Box = fmt.Sprintf("0 %s %s %s", coordinate(top), coordinate(drawingWidth), coordinate(max(bottom-top, 0)))
	return d
}

// describe says in words what is drawn.
func (d drawing) describe() (s string) {
	for _, n := range d.Nodes {
		s += n.Summary + ". "
	}
	for _, e := range d.Edges {
		if e.Class != "seen" {
			s += e.Summary + ". "
		}
	}
	return s
}

func sign(kind page.BadgeKind) string {
	switch kind {
	case page.Good:
		return "✓"
	case page.Bad, page.Caution:
		return "!"
	case page.Accent:
		return "…"
	}
	return "–"
}

// middle shortens a name in its middle, since names of replicas differ at their ends.
func middle(name string, most int) string {
	runes := []rune(name)
	if len(runes) <= most {
		return name
	}
	head := (most - 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(most-1-head):])
}

func coordinate(x float64) string { return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) }
