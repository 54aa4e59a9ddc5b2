package main

import (
	"github.com/alecthomas/kong"
	"github.com/posener/complete"
	"github.com/willabides/kongplete"
)

// completionCmd prints a script for a shell's start-up file. Each script has fleetkey itself
// complete the line, as bash does for `complete -C`: by COMP_LINE and COMP_POINT.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish,powershell" help:"bash, zsh, fish or powershell."`
}

// Run is called by kong.
func (c *completionCmd) Run(a *app) error {
	a.printf("%s", completionScripts[c.Shell])
	return nil
}

var completionScripts = map[string]string{
	"bash": "complete -C fleetkey fleetkey\n",
	"zsh":  "autoload -U +X compinit bashcompinit && compinit && bashcompinit\ncomplete -C fleetkey fleetkey\n",
	"fish": `function __complete_fleetkey
    set -lx COMP_LINE (commandline -cp)
    fleetkey
end
complete -f -c fleetkey -a "(__complete_fleetkey)"
`,
	"powershell": `Register-ArgumentCompleter -Native -CommandName fleetkey -ScriptBlock {
    param($word, $ast, $cursor)
    $line = $ast.ToString()
    if ($line.Length -gt $cursor) { $line = $line.Substring(0, $cursor) }
    $env:COMP_LINE = $line.PadRight($cursor)
    try {
        fleetkey | ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
    } finally {
        Remove-Item Env:COMP_LINE
    }
}
`,
}

// answerShell completes a line and ends the program, if a shell asks for that.
func answerShell(parser *kong.Kong) {
	kongplete.Complete(parser, kongplete.WithPredictor("file", complete.PredictFiles("*")))
}
