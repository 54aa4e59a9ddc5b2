package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// help prints kong's help under a usage line of ours: kong shows flags that exclude each
// other as if all were required.
func help(options kong.HelpOptions, ctx *kong.Context) error {
	if cmd := ctx.Selected(); cmd != nil {
		options.NoAppSummary = true
		_, _ = fmt.Fprintf(ctx.Stdout, "Usage: %s\n", usageLine(cmd))
	}
	return kong.DefaultHelpPrinter(options, ctx)
}

// usageLine shows a group of flags of which one must be given in parentheses, and a group of
// which one can be given in brackets.
func usageLine(cmd *kong.Node) string {
	words := []string{cmd.FullPath()}
	var shown []string
	for _, flag := range cmd.Flags {
		switch {
		case len(flag.Xor) == 0 && flag.Required:
			words = append(words, flagWords(flag))
		case len(flag.Xor) == 0 || slices.Contains(shown, flag.Xor[0]):
		default:
			shown = append(shown, flag.Xor[0])
			var group []string
			for _, other := range cmd.Flags {
				if slices.Contains(other.Xor, flag.Xor[0]) {
					group = append(group, flagWords(other))
				}
			}
			choice := "[" + strings.Join(group, " | ") + "]"
			if flag.Required {
				choice = "(" + strings.Join(group, " | ") + ")"
			}
			words = append(words, choice)
		}
	}
	words = append(words, "[flags]")
	for _, arg := range cmd.Positional {
		words = append(words, arg.Summary())
	}
	return strings.Join(words, " ")
}

func flagWords(flag *kong.Flag) string {
	return strings.Replace(flag.Summary(), "=", " ", 1)
}
