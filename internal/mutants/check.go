package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// check returns what is wrong with the table: a text that is not there, a test
// that does not exist, a row that nothing proves.
func check(root string, sections []section, mutants []mutant) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	c := checker{root: root, files: map[string]string{}, tests: map[string]map[string]bool{}}
	proven, names := map[string]bool{}, map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			bad("mutant %s: the name is given twice", m.name)
		}
		names[m.name] = true
		if strings.TrimSpace(m.rows) == "" || m.breaks == "" || m.old == m.new {
			bad("mutant %s: needs a row, words, and a change", m.name)
		}
		for _, row := range strings.Fields(m.rows) {
			proven[row] = true
		}
		if n := strings.Count(c.text(m.file), m.old); n != 1 {
			bad("mutant %s: its text stands %d times in %s, not once", m.name, n, m.file)
		}
		if !c.hasTest(m.dir, m.test) {
			bad("mutant %s: there is no test %s in ./%s", m.name, m.test, m.dir)
		}
	}
	known := map[string]bool{}
	for _, s := range sections {
		for _, r := range s.rows {
			if known[r.id] {
				bad("row %s: is there twice", r.id)
			}
			known[r.id] = true
			if proven[r.id] == (r.not != "") {
				bad("row %s: needs a mutant, or else the reason why not", r.id)
			}
			for _, test := range r.also {
				dir, name, ok := strings.Cut(test, " ")
				if !ok {
					dir, name = "", test
				}
				if !c.hasTest(dir, name) {
					bad("row %s: there is no test %s in ./%s", r.id, name, dir)
				}
			}
		}
	}
	for _, m := range mutants {
		for _, row := range strings.Fields(m.rows) {
			if !known[row] {
				bad("mutant %s: there is no row %s", m.name, row)
			}
		}
	}
	return problems
}

// A checker remembers what it has read.
type checker struct {
	root  string
	files map[string]string
	tests map[string]map[string]bool // by directory
}

func (c *checker) text(file string) string {
	if _, ok := c.files[file]; !ok {
		text, err := os.ReadFile(filepath.Join(c.root, file))
		if err != nil {
			return ""
		}
		c.files[file] = string(text)
	}
	return c.files[file]
}

// hasTest reports whether a directory's test files declare the function of a
// test, and whether its patterns of subtests can be read.
func (c *checker) hasTest(dir, test string) bool {
	if c.tests[dir] == nil {
		c.tests[dir] = testsIn(filepath.Join(c.root, dir))
	}
	name, sub, _ := strings.Cut(test, "/")
	for _, pattern := range strings.Split(sub, "/") {
		if _, err := regexp.Compile(pattern); err != nil {
			return false
		}
	}
	return c.tests[dir][name]
}

func testsIn(dir string) map[string]bool {
	found := map[string]bool{}
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz") || strings.HasPrefix(f.Name.Name, "Example")) {
				found[f.Name.Name] = true
			}
		}
	}
	return found
}
