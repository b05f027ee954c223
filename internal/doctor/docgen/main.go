// Command docgen writes docs/doctor.md from the checks of package doctor. `make docs` runs it.
//
//	docgen ../../docs/doctor.md
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/watchword-auth/watchword/internal/doctor"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "docgen: one file is expected: the page to write")
		os.Exit(1)
	}
	if err := os.WriteFile(os.Args[1], page(doctor.Groups()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

const introduction = "# The doctor: what can be wrong with a deployment\n\n" +
	"<!-- Made from internal/doctor by `make docs`; change it there. -->\n\n" +
	"`watchword doctor` looks for what is wrong with a deployment: its settings, the database, Redis, the replicas, and what\n" +
	"stands before them. Each check says what it saw and how to mend it. It changes nothing that users have: what it writes to\n" +
	"find out something expires within minutes.\n\n" +
	"```\n" +
	"watchword doctor --config /etc/watchword.yaml            # all checks\n" +
	"watchword doctor --peers https://auth-0:8080,https://auth-1:8080\n" +
	"watchword doctor --check redis-eviction,tls-expiry --json\n" +
	"watchword doctor --list                                  # what there is\n" +
	"```\n\n" +
	"- **Run it with the configuration of the replicas**, on a machine that reaches what they reach: the database, Redis, the other\n" +
	"  replicas and `server.public_url`. Replicas are those that `cluster.discovery` names and those in their registry, or those at\n" +
	"  the URLs of `--peers`.\n" +
	"- **Status**: 0 if no check found an error; 1 if one did, or could not look for one; 2 if the command line was not understood.\n" +
	"  With `--strict` warnings count as well.\n" +
	"- **Results.** *ok*: it is as the check's title says. *error*, *warning*, *advice*: something was found. *unknown*: the check could\n" +
	"  not look. *skipped*: there is nothing to look at here.\n" +
	"- **A backend that is away** is a finding: the doctor does not need what it looks at.\n\n" +
	"## In a running replica\n\n" +
	"A replica runs the checks by itself a minute or two after its start and about every ten minutes, as far as they ask no other replica and\n" +
	"write nothing. What comes of them:\n\n" +
	"| where | what |\n|---|---|\n" +
	"| the log | one entry when a check begins to find something, and one when it no longer does |\n" +
	"| `watchword_doctor_checks{status,severity}` | how many checks there are with each result |\n" +
	"| `GET /readyz` | `\"checks\":{\"errors\":0,\"warnings\":1}`: no details, since everybody may ask, and never the reason for a 503 |\n" +
	"| `/admin/checks` | the results, and a button that runs all checks, at most every ten seconds; for administrators with `keys:read` |\n\n" +
	"## Who learns what\n\n" +
	"The doctor asks replicas with `POST /api/cluster/examine`. Question and answer are encrypted under `cluster.secret` and a nonce that\n" +
	"the doctor chooses, and the answer is authenticated, so a URL that leads to somebody else gives nothing away, and what it answers is\n" +
	"not believed. A replica answers each question once: one that was recorded is refused (403 `question_replayed`). Settings\n" +
	"that are secret are never sent, but an HMAC of each under a key that follows from `cluster.secret`, by which two replicas can be compared.\n\n" +
	"## The checks\n\n" +
	"An *error* breaks a promise now, or keeps one from being kept. A *warning* does when something else happens, such as a restart.\n" +
	"*Advice* could be better. Some errors of Redis are warnings with `state.backend: tiered`, or `sql`: nothing is lost then, but it is slower.\n"

// page is the page about the checks.
func page(groups []doctor.Group) []byte {
	var b bytes.Buffer
	b.WriteString(introduction)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n### %s\n\n| check | finds | what holds | what goes wrong otherwise, and what to do |\n|---|---|---|---|\n", g.Title)
		for _, c := range g.Checks {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.ID, c.Finds(), c.Title, c.Means)
		}
	}
	return b.Bytes()
}
