package main

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// This file formats kong's help.

// newParser returns the parser of a's command line.
func newParser(a *app) *kong.Kong {
	return kong.Must(&cli{}, kong.Bind(a), kong.Name("fleetkey"),
		kong.Description("Manages the signing keys that a fleet of OpenID servers shares.\n\n"+
			"Exit status: 0 success; 1 failure; 2 wrong usage; 3 a problem with keys, token or environment; 4 not confirmed."),
		kong.Vars{"version": version(), "of": "The store is"}, kong.Groups{"policy": "Where the servers' fleetkey.Config differs from the defaults:"}, kong.Resolvers(kong.ResolverFunc(fromEnvironment)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Help(help), kong.ValueFormatter(withVariable), kong.PostBuild(finish))
}

// examples are command lines for the help of each command.
//
//go:embed examples.txt
var examples string

// finish adds what kong's tags cannot say: the examples, and that verify needs no store.
func finish(k *kong.Kong) error {
	for _, cmd := range k.Model.Children {
		cmd.Detail = "Examples:\n\n"
		for line := range strings.Lines(examples) {
			if strings.HasPrefix(line, "fleetkey "+cmd.Name+" ") {
				cmd.Detail += "  " + line
			}
		}
		for _, flag := range cmd.Flags {
			flag.Required = flag.Required && (cmd.Name != "verify" || variable(flag) == "")
		}
	}
	return nil
}

// withVariable adds the environment variable to the help of a flag.
func withVariable(value *kong.Value) string {
	if value.Flag != nil && variable(value.Flag) != "" {
		return strings.TrimSuffix(value.Help, ".") + " ($" + variable(value.Flag) + ")."
	}
	return value.Help
}

// help prints kong's help under our own usage line: kong shows mutually exclusive flags as
// if all were required.
func help(options kong.HelpOptions, ctx *kong.Context) error {
	if cmd := ctx.Selected(); cmd != nil {
		options.NoAppSummary = true
		_, _ = fmt.Fprintf(ctx.Stdout, "Usage: %s\n", usageLine(cmd))
	}
	return kong.DefaultHelpPrinter(options, ctx)
}

// usageLine shows a group of flags in parentheses if one is required, and in brackets if
// one is optional.
func usageLine(cmd *kong.Node) string {
	words := []string{cmd.FullPath()}
	var shown []string
	for _, flag := range cmd.Flags {
		group := cmp.Or(strings.Join(flag.Xor, " "), flag.Name)
		if slices.Contains(shown, group) || len(flag.Xor) == 0 && !flag.Required {
			continue
		}
		shown = append(shown, group)
		var choice []string
		for _, other := range cmd.Flags {
			if other == flag || len(flag.Xor) > 0 && slices.Equal(other.Xor, flag.Xor) {
				choice = append(choice, strings.Replace(other.Summary(), "=", " ", 1))
			}
		}
		word := strings.Join(choice, " | ")
		switch {
		case !flag.Required:
			word = "[" + word + "]"
		case len(choice) > 1:
			word = "(" + word + ")"
		}
		words = append(words, word)
	}
	words = append(words, "[flags]")
	for _, arg := range cmd.Positional {
		words = append(words, arg.Summary())
	}
	return strings.Join(words, " ")
}
