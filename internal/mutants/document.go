package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const documentPath = "docs/faults.md"

const preface = `<!-- Written by "go run ./internal/mutants -write" from its table. -->

# Faults and attacks

What goes wrong around signing keys, or is tried on them, what fleetkey does
then, and which test proves it. No test is believed that nobody has seen fail:
behind each stands the mistake that it was run against, and each of these %d
mistakes is kept as a replacement of text in
[internal/mutants](../internal/mutants/main.go). This makes them one after the
other, and fails unless the test named here notices:

` + "```sh\nmake mutants\n```" + `

It takes ten minutes on two cores;
` + "`internal/moto/with-moto.sh go run ./internal/mutants F4`" + ` takes one row alone.
Every run of the tests checks that the table still fits the code.

`

// document writes the table for a reader.
func document(sections []section, mutants []mutant) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, preface, len(mutants))
	for _, s := range sections {
		fmt.Fprintf(&out, "- [%s](#%s)\n", s.title, strings.ReplaceAll(strings.ToLower(s.title), " ", "-"))
	}
	for _, s := range sections {
		fmt.Fprintf(&out, "\n## %s\n\n%s", s.title, wrapped("", s.intro))
		for _, r := range s.rows {
			text := fmt.Sprintf("**%s. %s.** %s", r.id, r.fault, r.want)
			if r.not != "" {
				text += " Not proven here: " + r.not + "."
			}
			out.WriteString("\n" + wrapped("", text))
			if r.not == "" {
				out.WriteString("\n")
				r.proofs(&out, mutants)
			}
		}
	}
	return out.Bytes()
}

// proofs lists the tests of a row, each with what it was seen to notice.
func (r row) proofs(out *bytes.Buffer, mutants []mutant) {
	var tests []string
	noticed := map[string][]string{}
	for _, m := range mutants {
		if slices.Contains(strings.Fields(m.rows), r.id) {
			name := shown(m.dir, m.test)
			if noticed[name] == nil {
				tests = append(tests, name)
			}
			noticed[name] = append(noticed[name], m.breaks)
		}
	}
	for _, name := range tests {
		out.WriteString(wrapped("- ", name+" fails when "+strings.Join(noticed[name], "; when ")))
	}
	var also []string
	for _, test := range r.also {
		dir, name, ok := strings.Cut(test, " ")
		if !ok {
			dir, name = "", test
		}
		if name = shown(dir, name); noticed[name] == nil {
			also = append(also, name)
		}
	}
	if also != nil {
		out.WriteString(wrapped("- ", "also "+strings.Join(also, ", ")))
	}
}

// shown is a test without its patterns, and where it is if not in the root.
func shown(dir, test string) string {
	name, _, _ := strings.Cut(test, "/")
	name = "`" + name + "`"
	if dir != "" {
		name += " in " + dir
	}
	return name
}

// wrapped returns text in lines of at most 80 columns, as far as its words allow.
func wrapped(mark, text string) string {
	var out strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			out.WriteString(mark)
			column = len(mark)
		case column+1+len(word) > 80:
			out.WriteString("\n" + strings.Repeat(" ", len(mark)))
			column = len(mark)
		default:
			out.WriteString(" ")
			column++
		}
		out.WriteString(word)
		column += len(word)
	}
	return out.String() + "\n"
}
