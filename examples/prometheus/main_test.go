package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// scrape returns the server's series.
func scrape(t *testing.T) (series []string) {
	server, err := routes(fleetkeytest.NewSigner(t, fleetkey.Config{}))
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	// Prometheus 3 sends this; it would accept names with dots too.
	r.Header.Set("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4")
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(?:\{(.*)\})? \S+$`).FindAllStringSubmatch(w.Body.String(), -1) {
		series = append(series, m[1]+`{job="openid",instance="a:9464",`+m[2]+"}")
	}
	return series
}

// TestAlerts runs promtool to check when the alerts fire. The server must export each metric,
// label and outcome in the rules.
func TestAlerts(t *testing.T) {
	exported := strings.Join(scrape(t), "\n")
	for _, file := range []string{"alerts.yaml", "alerts_test.yaml"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, name := range regexp.MustCompile(`\bfleetkey_\w+|"accepted"|"malformed"`).FindAllString(string(text), -1) {
			assert.True(t, regexp.MustCompile(name+`\W`).MatchString(exported), "%s in %s", name, file)
		}
	}
	promtool(t, "alerts_test.yaml")
}

type object = map[string]any

// TestDashboard runs promtool to check that no panel of the dashboard is empty.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	variables := strings.NewReplacer("$job", "openid", "$instance", ".*", "$__rate_interval", "4m",
		" == 0) or vector(0)", ")") // without the default, which is never empty
	var series, exprs []object
	for _, s := range scrape(t) {
		series = append(series, object{"series": s, "values": "1x60"})
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets { // absent has a value if the query has none
			exprs = append(exprs, object{"expr": fmt.Sprintf("absent(%s)", variables.Replace(target.Expr)), "eval_time": "30m"})
		}
	}
	require.NotEmpty(t, exprs)
	data, err := json.Marshal(object{"tests": []object{{"interval": "1m", "input_series": series, "promql_expr_test": exprs}}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "test.yaml") // JSON is YAML
	require.NoError(t, os.WriteFile(file, data, 0o600))
	promtool(t, file)
}

func promtool(t *testing.T, file string) {
	program, err := exec.LookPath("promtool")
	if err != nil {
		testkit.Missing(t, "promtool", "apt-get install prometheus")
	}
	out, err := exec.CommandContext(t.Context(), program, "test", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
