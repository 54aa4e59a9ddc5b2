package main

import (
	"embed"

	"github.com/alecthomas/kong"
	"github.com/posener/complete"
	"github.com/willabides/kongplete"
)

// completionCmd prints a shell startup script. The script calls fleetkey to complete the
// line, as bash does for `complete -C`, with COMP_LINE and COMP_POINT.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish,powershell" help:"bash, zsh, fish or powershell."`
}

//go:embed completion
var completion embed.FS

func (c *completionCmd) Run(a *app) error {
	script, err := completion.ReadFile("completion/" + c.Shell)
	a.printf("%s", script)
	return err
}

// answerShell completes a line and exits, if a shell requests it.
func answerShell(parser *kong.Kong) {
	kongplete.Complete(parser, kongplete.WithPredictor("file", complete.PredictFiles("*")))
}
