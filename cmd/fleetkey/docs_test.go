package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// The console blocks in docs/, most of them in cli.md, show the output of the program. This
// test runs every command of each page and compares the output; -update rewrites the pages:
//
//	go test -run TestDocs -update
//
// An HTML comment that begins with "run:" is a command whose output is not shown. Commands can
// set shell variables for later commands by writing to the file "set".

var update = flag.Bool("update", false, "write docs/ with what the commands print now")

const (
	docsPages  = "../../docs/*.md"
	docsFolder = "/var/lib/openid-server"    // stands for a directory of the test
	docsIssuer = "https://login.example.com" // stands for an issuer of the test
)

// varying matches the parts of the output that differ from run to run.
var varying = regexp.MustCompile(`(?m)` + strings.Join([]string{
	`^( +now +\||\S{10}~ .*)$`,                   // a line of the timeline
	`^ {13}\d{4}-.*$`,                            // the dates at its ends
	`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z`, // a time
	`\b[0-9a-f]{64}\b`,                           // the version of a file
	`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-\w{12}\b`,    // the version of a secret
	`[A-Za-z0-9_-]{43}`,                          // a kid
	`uid \d+`,
}, "|"))

func TestDocs(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("skipped: the page is written for a POSIX shell")
	}
	for _, path := range must(filepath.Glob(docsPages)) {
		page := string(must(os.ReadFile(path)))
		if strings.Contains(page, "```console\n") {
			t.Run(filepath.Base(path), func(t *testing.T) {
				if now := runPage(t, page); *update {
					write(path, []byte(now))
				}
			})
		}
	}
}

// shown matches a console block, and a command whose output is not shown.
var shown = regexp.MustCompile("(?ms)<!-- run: ([^\n]*) -->|^```console\n(.*?)^```\n")

// runPage returns the page with the current output of its commands.
func runPage(t *testing.T, page string) string {
	run := shell(t)
	return shown.ReplaceAllStringFunc(page, func(found string) string {
		part := shown.FindStringSubmatch(found)
		if part[1] != "" {
			run(part[1])
			return found
		}
		block := "```console\n"
		for _, step := range regexp.MustCompile(`(?m)^\$ `).Split(part[2], -1)[1:] {
			command, want, _ := strings.Cut(step, "\n")
			got := run(command)
			assert.Equal(t, varying.ReplaceAllString(want, "~"), varying.ReplaceAllString(got, "~"), command)
			block += "$ " + command + "\n" + got
		}
		return block + "```\n"
	})
}

// shell returns a function that runs a command of the page and returns its output.
func shell(t *testing.T) func(string) string {
	t.Helper()
	folder, self, bin := must(filepath.EvalSymlinks(t.TempDir())), must(os.Executable()), t.TempDir()
	check(os.Symlink(self, filepath.Join(bin, "fleetkey")))
	check(os.Symlink(self, filepath.Join(bin, "fixture")))
	check(os.Chmod(folder, 0o700))
	write(filepath.Join(folder, "set"), nil)
	url, tokens := startIssuer(t)
	write(filepath.Join(folder, "legacy"), []byte(tokens["legacy"]))
	awsfake.Start(t).Setenv(t)
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return func(command string) string {
		cmd := exec.Command("sh", "-c", ". ./set; "+strings.NewReplacer(docsFolder, folder, docsIssuer, url).Replace(command))
		cmd.Dir = folder
		out, err := cmd.CombinedOutput()
		text := strings.NewReplacer(folder, docsFolder, url, docsIssuer).Replace(string(out))
		if err != nil {
			text += "[" + err.Error() + "]\n"
		}
		return text
	}
}
