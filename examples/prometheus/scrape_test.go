package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// accept is as of Prometheus 3, which would take names with dots, too.
const accept = `text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4`

// get sends the server a request with a token, or without if it is empty.
func get(t *testing.T, server http.Handler, path, token string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	return w
}

// scrape returns the server's metrics.
func scrape(t *testing.T, server http.Handler) map[string]*dto.MetricFamily {
	t.Helper()
	w := get(t, server, "/metrics", "")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	require.NoError(t, err)
	return families
}

// A dashboard is what the tests look at of dashboard.json.
type dashboard struct {
	Panels []struct {
		ID      int
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(data, &d))
	require.NotEmpty(t, d.Panels)
	return d
}

// alertRules returns the expressions of alerts.yaml, by name.
func alertRules(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("alerts.yaml")
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	require.NoError(t, yaml.Unmarshal(data, &file))
	rules := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			require.NotContains(t, rules, r.Alert)
			rules[r.Alert] = r.Expr
		}
	}
	require.NotEmpty(t, rules)
	return rules
}

var (
	matchers = regexp.MustCompile(`\{[^{}]*\}`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
	word     = regexp.MustCompile(`\w+`)
	ours     = regexp.MustCompile(`\bfleetkey_\w+`)
)

// TestNames looks for every metric and label of the dashboard and the rules in
// what the server really exports, and for every exported metric on the dashboard.
func TestNames(t *testing.T) {
	signer := fleetkeytest.NewSigner(t, fleetkey.Config{})
	server, err := routes(signer)
	require.NoError(t, err)
	labels := map[string]map[string]bool{"job": {}, "instance": {}} // from Prometheus
	families := scrape(t, server)
	for _, family := range families {
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if labels[l.GetName()] == nil {
					labels[l.GetName()] = map[string]bool{}
				}
				labels[l.GetName()][l.GetValue()] = true
			}
		}
	}
	used := map[string]bool{}
	check := func(expr, legend string) {
		for _, m := range matchers.FindAllString(expr, -1) {
			for _, l := range matcher.FindAllStringSubmatch(m, -1) {
				require.Contains(t, labels, l[1], expr)
				if !strings.HasPrefix(l[2], "$") {
					require.Contains(t, labels[l[1]], l[2], expr)
				}
			}
		}
		for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
			for _, l := range word.FindAllString(g[1], -1) {
				require.Contains(t, labels, l, expr)
			}
		}
		for _, l := range word.FindAllString(legend, -1) {
			require.Contains(t, labels, l, legend)
		}
		names := ours.FindAllString(grouping.ReplaceAllString(matchers.ReplaceAllString(expr, ""), ""), -1)
		require.NotEmpty(t, names, expr)
		for _, name := range names {
			require.Contains(t, families, name, expr)
			used[name] = true
		}
	}
	for _, expr := range alertRules(t) {
		check(expr, "")
	}
	d := readDashboard(t)
	clear(used)
	for _, p := range d.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			check(target.Expr, target.LegendFormat)
		}
	}
	for name := range families {
		if name != "target_info" { // of the exporter
			require.Contains(t, used, name, "no panel shows it")
		}
	}
	for _, v := range d.Templating.List {
		for _, name := range ours.FindAllString(v.Definition, -1) {
			require.Contains(t, families, name, v.Name)
		}
	}
}

func TestDashboard(t *testing.T) {
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		require.Positive(t, p.ID, p.Title)
		require.False(t, ids[p.ID], "panel id %d is there twice", p.ID)
		ids[p.ID] = true
		g := p.GridPos
		require.LessOrEqual(t, g.X+g.W, 24, p.Title)
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				require.Empty(t, cells[[2]int{x, y}], "%s lies over it", p.Title)
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}
