package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
)

// Most of the time goes into compiling the tests, and a mutant needs one of
// them. This file finds the test files that it can do without.

// A testFile is what the names in a file of tests say, each with its package.
type testFile struct {
	path     string
	declares map[string]bool // at top level, and the types that it has methods for
	mentions map[string]bool
}

// unneeded returns the test files in a directory that a test does not need: it
// needs those that declare what its own file mentions, and so on. Names in a
// function are not told from those at top level, so more are kept than need be.
func unneeded(dir, test string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	var files []testFile
	wanted := map[string]bool{}
	for _, path := range paths {
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, testFile{path, declarations(parsed), mentions(parsed)})
		for _, name := range []string{test, "TestMain", "init"} {
			wanted[parsed.Name.Name+"."+name] = true
		}
	}
	for {
		i := slices.IndexFunc(files, func(f testFile) bool { return meet(f.declares, wanted) })
		if i < 0 {
			break
		}
		maps.Copy(wanted, files[i].mentions)
		files = slices.Delete(files, i, i+1)
	}
	var left []string
	for _, f := range files {
		left = append(left, f.path)
	}
	return left, nil
}

func meet(a, b map[string]bool) bool {
	for name := range a {
		if b[name] {
			return true
		}
	}
	return false
}

func declarations(file *ast.File) map[string]bool {
	found := map[string]bool{}
	add := func(id *ast.Ident) { found[file.Name.Name+"."+id.Name] = true }
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d.Name)
				continue
			}
			ast.Inspect(d.Recv, func(n ast.Node) bool {
				if f, ok := n.(*ast.Field); ok {
					ast.Inspect(f.Type, func(n ast.Node) bool {
						if id, ok := n.(*ast.Ident); ok {
							add(id)
						}
						return true
					})
					return false
				}
				return true
			})
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					add(spec.Name)
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						add(name)
					}
				}
			}
		}
	}
	return found
}

// mentions returns the names that a file may have from others of its package,
// and what it has from another package in the form of "fleetkey.Name".
func mentions(file *ast.File) map[string]bool {
	found := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				found[x.Name+"."+n.Sel.Name] = true
				found[file.Name.Name+"."+x.Name] = true
				return false
			}
		case *ast.Ident:
			found[file.Name.Name+"."+n.Name] = true
		}
		return true
	})
	return found
}
