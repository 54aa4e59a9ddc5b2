// Package browser presses every button of the page that examples/openid-server serves, in
// headless Chromium, with the key in a file and in a fake AWS Secrets Manager. It has no long
// form. With FLEETKEY_SCREENSHOT=file, it writes the screenshot of the README.
package browser

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const example = "../../examples/openid-server"

// newest is a script that returns the newest act with the states of its checks.
const newest = `(() => {
	const act = document.querySelector(".act")
	return act ? act.querySelector("strong").textContent + ": " + [...act.querySelectorAll("li")].map(li => li.className).join(" ") : ""
})()`

func TestPage(t *testing.T) {
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && chromium == "" {
			chromium = path
		}
	}
	if chromium == "" {
		testkit.Missing(t, "Chromium", "apt-get install chromium")
	}
	program := filepath.Join(t.TempDir(), "openid-server")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = example
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	awsfake.Start(t).Setenv(t)
	for name, flags := range map[string][]string{"file": nil, "secret": {"-settings", filepath.Join(example, "appsettings.json")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := start(t, program, flags...)
			options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox,
				chromedp.WindowSize(1150, 1000), chromedp.Flag("disable-dev-shm-usage", true))
			ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
			defer cancel()
			ctx, cancel = chromedp.NewContext(ctx)
			defer cancel()
			ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
			defer cancel()
			operate(ctx, t, address, name == "file")
		})
	}
}

// start runs the example, and returns the address of its proxy.
func start(t *testing.T, program string, flags ...string) string {
	server := exec.Command(program, append(flags, "-addr", "127.0.0.1:0")...)
	server.Stderr = os.Stderr
	printed, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		require.NoError(t, server.Process.Signal(os.Interrupt))
		require.NoError(t, server.Wait(), "the example failed")
	})
	lines, address := bufio.NewScanner(printed), ""
	for address == "" || !strings.HasPrefix(lines.Text(), "Or try") {
		require.True(t, lines.Scan(), "the example has ended")
		if is := strings.TrimSpace(lines.Text()); strings.HasPrefix(is, "http://") {
			address = is
		}
	}
	go func() { // drains the rest of its output
		for lines.Scan() {
		}
	}()
	return address
}

// operate presses the buttons one after the other. It waits after each one until the page
// shows the expected states.
func operate(ctx context.Context, t *testing.T, address string, picture bool) {
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(address), chromedp.WaitVisible("#instance2")))
	press := func(button, expects string) {
		t.Helper()
		button = "[data-act=" + button + "]"
		require.NoError(t, chromedp.Do(ctx, chromedp.WaitVisible(button), chromedp.Click(button)))
		now, err := chromedp.Run(ctx, chromedp.Poll[string](fmt.Sprintf(`(now => now === %q || now.includes("failed") ? now : "")(%s)`, expects, newest)))
		require.NoError(t, err, button)
		require.Equal(t, expects, now)
	}
	press("token2", "Instance 2: Get a token here: met")
	press("stop3", "Instance 3: Stop: met")
	press("fail", "Make the store fail: met met")
	press("recover", "Bring the store back: met")
	press("start3", "Instance 3: Start: met")
	press("rotate", "Rotate: met met waiting waiting")
	press("token1", "Instance 1: Get a token here: met")
	press("revoke", "Revoke the key: met met met")
	if file := os.Getenv("FLEETKEY_SCREENSHOT"); file != "" && picture {
		png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, png, 0o644))
	}
	press("exchange", "Replace the bundle: met waiting")
	for _, script := range []string{`document.getElementById("lost").textContent`, `[...document.querySelectorAll(".failed")].map(e => e.textContent).join()`} {
		problem, err := chromedp.Run(ctx, chromedp.Evaluate[string](script))
		require.NoError(t, err)
		require.Empty(t, problem)
	}
}
