package main

import (
	"fmt"
	"strings"
)

const intro = `# Results

Made by ` + "`go run .`" + ` in this folder; [README.md](README.md) says how, and what two
of the clients had to be told. Each client is the unmodified library, with its
default caches. It gets the issuer's URL, the audience and the algorithm, and
finds the keys through discovery and JWKS.

` + "`ok`" + ` means that the client accepted the tokens, ` + "`refused`" + ` that it refused them,
each as it should. A cell in bold letters is a failure. The phases:

`

// report writes RESULTS.md. It holds no date and nothing that differs between two
// runs, so that a changed file is a changed result.
func report(clients []*client) string {
	var b strings.Builder
	b.WriteString(intro)
	for _, t := range titles {
		fmt.Fprintf(&b, "- **%s**: %s.\n", t[0], t[1])
	}
	b.WriteString("\n| client | algorithm |")
	for _, t := range titles {
		b.WriteString(" " + t[0] + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", int(phases)) + "\n")
	for _, c := range clients {
		for _, r := range c.rows {
			fmt.Fprintf(&b, "| %s | %s |", c.label(), r.algorithm)
			for p := range phases {
				b.WriteString(" " + c.cell(r, p) + " |")
			}
			b.WriteString("\n")
		}
	}
	if failed := failures(clients); len(failed) > 0 {
		b.WriteString("\n## What went wrong\n\n- " + strings.Join(failed, "\n- ") + "\n")
	}
	b.WriteString("\n## Refusals, in the clients' own words\n\n| client | of | says |\n|---|---|---|\n")
	for _, c := range clients {
		b.WriteString(c.quotations())
	}
	return b.String()
}

func (c *client) label() string {
	return strings.TrimSpace(c.name+" "+c.version) + " (" + c.language + ")"
}

// cell returns what the table says of a phase.
func (c *client) cell(r *row, p phase) string {
	o := r.outcomes[p]
	switch {
	case o.failed != "":
		return "**FAILED**"
	case c.broken != nil && !o.ran:
		return "**not run**"
	case !c.supports(r.algorithm):
		return "not supported"
	case o.accepted:
		return "ok"
	}
	return "refused"
}

// quotations lists refusals in the client's own words, each once.
func (c *client) quotations() (table string) {
	for _, r := range c.rows {
		for p, o := range r.outcomes {
			if o.words == "" || o.failed != "" {
				continue
			}
			of := titles[p][0]
			if !c.supports(r.algorithm) {
				of = r.algorithm
			}
			line := fmt.Sprintf("| %s | %s | %s |\n", c.label(), of, strings.ReplaceAll(o.words, "|", "\\|"))
			if !strings.Contains(table, line) {
				table += line
			}
		}
	}
	return table
}

// failures returns what makes the run fail.
func failures(clients []*client) (failed []string) {
	for _, c := range clients {
		if c.broken != nil {
			failed = append(failed, fmt.Sprintf("%s: %s", c.label(), strings.Join(strings.Fields(c.broken.Error()), " ")))
		}
		for _, r := range c.rows {
			for p, o := range r.outcomes {
				if o.failed != "" {
					failed = append(failed, fmt.Sprintf("%s, %s, %s: %s", c.label(), r.algorithm, titles[p][0], o.failed))
				}
			}
		}
	}
	return failed
}
