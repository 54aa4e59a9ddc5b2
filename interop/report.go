package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// This file writes the rows down as RESULTS.md. It holds no date and nothing
// that differs between two runs, so that a changed file is a changed result.

func report(rows []*row) string {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(languageOrder(a.language), languageOrder(b.language)), cmp.Compare(a.name, b.name))
	})
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
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s |", r.label(), r.algorithm)
		for p := range phases {
			b.WriteString(" " + r.cell(p) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString(quotations(rows))
	return b.String()
}

const intro = `# Results

Made by ` + "`go run .`" + ` in this folder; [README.md](README.md) says how, and what two
of the clients had to be told. Each client is the unmodified library, with its
default caches. It gets the issuer's URL, the audience and the algorithm, and
finds the keys through discovery and JWKS.

` + "`ok`" + ` means that the client accepted the tokens, ` + "`refused`" + ` that it refused them,
each as it should. A cell in bold letters is a failure. The phases:

`

func languageOrder(language string) int {
	return slices.Index([]string{"Go", "Node", "Python", "Java"}, language)
}

func (r *row) label() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s", r.name, r.version)) + " (" + r.language + ")"
}

// cell returns what the table says of a phase.
func (r *row) cell(p phase) string {
	o := r.outcomes[p]
	switch {
	case r.notRun != "":
		return "**not run**"
	case o.failed != "":
		return "**FAILED**"
	case !r.supports(r.algorithm):
		return "not supported"
	case !o.ran:
		return "**not run**"
	case o.accepted:
		return "ok"
	}
	return "refused"
}

// quotations lists refusals in the clients' own words, each once, and first
// whatever went wrong.
func quotations(rows []*row) string {
	var failures, refusals strings.Builder
	said := make(map[string]bool)
	for _, r := range rows {
		if r.notRun != "" && !said[r.label()] {
			said[r.label()] = true
			fmt.Fprintf(&failures, "- %s: not run: %s\n", r.label(), oneLine(r.notRun))
		}
		for p, o := range r.outcomes {
			if o.failed != "" {
				fmt.Fprintf(&failures, "- %s, %s, %s: %s\n", r.label(), r.algorithm, titles[p][0], oneLine(o.failed))
				continue
			}
			if o.words == "" {
				continue
			}
			about := titles[p][0]
			if !r.supports(r.algorithm) {
				about = r.algorithm
			}
			line := fmt.Sprintf("| %s | %s | %s |\n", r.label(), about, strings.ReplaceAll(oneLine(o.words), "|", "\\|"))
			if !said[line] {
				said[line] = true
				refusals.WriteString(line)
			}
		}
	}
	var b strings.Builder
	if failures.Len() > 0 {
		b.WriteString("\n## What went wrong\n\n" + failures.String())
	}
	if refusals.Len() > 0 {
		b.WriteString("\n## Refusals, in the clients' own words\n\n| client | of | says |\n|---|---|---|\n" + refusals.String())
	}
	return b.String()
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// failures returns what makes the run fail. A client that could not run counts
// only where everything is required.
func failures(rows []*row, requireAll bool) []string {
	var failed []string
	for _, r := range rows {
		if r.notRun != "" && requireAll {
			failed = append(failed, fmt.Sprintf("%s, %s: not run: %s", r.label(), r.algorithm, r.notRun))
		}
		for p, o := range r.outcomes {
			if o.failed != "" {
				failed = append(failed, fmt.Sprintf("%s, %s, %s: %s", r.label(), r.algorithm, titles[p][0], o.failed))
			}
		}
	}
	return failed
}
