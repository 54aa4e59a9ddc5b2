package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A scenario is some time in the life of a server. A real signer lives through
// it in virtual time and is scraped every minute; Prometheus then judges what
// was scraped by the rules of alerts.yaml.
type scenario struct {
	name     string
	rotation fleetkey.Rotation
	fromEnd  time.Duration // of the key, when the scrapes begin; 0: they begin at its start
	minutes  int
	traffic  func(minute int) (good, bad int) // tokens shown; nil: 10 good ones
	failing  fleetkeytest.Op                  // of the store, between two minutes
	from, to int
	phases   []phase
}

// A phase ends at a minute, and says which alerts have fired in it and no others.
type phase struct {
	until  int
	firing []string
}

const hour = 60 // minutes

// quick is a rotation that takes hours: the first key begins one before it is made, so the
// next is due one after. Without the store a server issues tokens for two hours less four minutes.
var quick = fleetkey.Rotation{Every: 3 * time.Hour, Announce: time.Hour, Retain: 2 * time.Hour}

var scenarios = []scenario{
	{name: "two rotations without a fault", minutes: 8 * hour, rotation: quick, phases: []phase{{8 * hour, nil}}},
	{
		name: "the store cannot be written when a rotation is due", minutes: 9 * hour,
		rotation: quick, failing: fleetkeytest.OpSave, from: 1, to: 6 * hour,
		phases: []phase{{2*hour + 10, nil}, {8 * hour, []string{"FleetkeyRotationOverdue"}}, {9 * hour, nil}},
	},
	{
		name: "a key that nobody replaces, from 90 days before its end", minutes: 4 * hour, fromEnd: 90*24*time.Hour + 2*time.Hour,
		phases: []phase{{3*hour - 5, nil}, {4 * hour, []string{"FleetkeyKeyNearEnd"}}},
	},
	{
		name: "the last hours of that key", minutes: 4 * hour, fromEnd: 3 * time.Hour,
		phases: []phase{
			{hour - 5, nil}, // the first scrape was only now, and the alert waits an hour
			{hour + 50, []string{"FleetkeyKeyNearEnd"}},
			{3*hour + 10, []string{"FleetkeyCannotIssue", "FleetkeyKeyNearEnd"}}, {4 * hour, []string{"FleetkeyCannotIssue"}},
		},
	},
	{
		name: "a rotating server cut off for hours, and then not", minutes: 5 * hour,
		rotation: quick, failing: fleetkeytest.OpLoad, from: 10, to: 3 * hour,
		phases: []phase{
			{35, nil}, {2*hour + 2, []string{"FleetkeyStoreUnreachable"}},
			{3*hour + 10, []string{"FleetkeyCannotIssue", "FleetkeyRotationOverdue", "FleetkeyStoreUnreachable"}}, {5 * hour, nil},
		},
	},
	{
		name: "many bad tokens for half an hour", minutes: 3 * hour,
		traffic: func(minute int) (int, int) {
			if hour <= minute && minute < hour+30 {
				return 90, 45
			}
			return 90, 9 // a tenth
		},
		phases: []phase{{hour + 10, nil}, {hour + 45, []string{"FleetkeyManyRejected"}}, {3 * hour, nil}},
	},
	{
		name: "a few bad tokens and nothing else", minutes: 2 * hour,
		traffic: func(int) (int, int) { return 0, 3 }, phases: []phase{{2 * hour, nil}},
	},
}

// live goes through a scenario and returns each series, as one value a minute.
func (s *scenario) live(t *testing.T) map[string][]string {
	series := map[string][]string{}
	synctest.Test(t, func(t *testing.T) {
		var minute atomic.Int64
		store := fleetkeytest.NewStore()
		store.SetHook(func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
			if m := int(minute.Load()); c.Op == s.failing && s.from <= m && m < s.to {
				f.Err = fleetkey.ErrUnavailable
			}
			return f
		})
		every := 5 * time.Minute
		if s.fromEnd > 0 {
			every = 25 * time.Minute // fewer steps in ten years
		}
		signer, err := fleetkey.NewSigner(t.Context(), store, fleetkey.Config{
			Issuer: "https://prometheus.example", Algorithm: "ES256", RefreshEvery: every,
			Rotation: s.rotation, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		defer signer.Close()
		server, err := routes(signer)
		require.NoError(t, err)
		if s.fromEnd > 0 {
			time.Sleep(time.Until(signer.Status().Keys[0].NotAfter) - s.fromEnd)
		}
		for m := range s.minutes + 1 {
			minute.Store(int64(m))
			for id, value := range scrape(t, server) {
				for len(series[id]) < m {
					series[id] = append(series[id], "_")
				}
				series[id] = append(series[id], value)
			}
			s.send(t, m, signer, server)
			time.Sleep(time.Minute)
			synctest.Wait()
		}
	})
	return series
}

// send shows the server a minute's tokens.
func (s *scenario) send(t *testing.T, minute int, signer *fleetkey.Signer, server http.Handler) {
	good, bad := 10, 0
	if s.traffic != nil {
		good, bad = s.traffic(minute)
	}
	token, err := signer.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web", ExpiresAt: time.Now().Add(time.Minute)})
	if err != nil { // the scenario says so by FleetkeyCannotIssue
		good = 0
	}
	for range good {
		require.Equal(t, http.StatusOK, get(server, "/hello", token).Code)
	}
	for range bad {
		require.Equal(t, http.StatusUnauthorized, get(server, "/hello", "junk").Code)
	}
}

// get sends the server a request with a token.
func get(server http.Handler, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	// as Prometheus 3 does, which would take names with dots, too
	r.Header.Set("Accept", "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.4")
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	server.ServeHTTP(w, r)
	return w
}

var sample = regexp.MustCompile(`(?m)^(\w+)(?:\{(.*)\})? (\S+)$`)

// scrape returns the server's series, as Prometheus would store them, with their values.
func scrape(t *testing.T, server http.Handler) map[string]string {
	w := get(server, "/metrics", "")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	series := map[string]string{}
	for _, m := range sample.FindAllStringSubmatch(w.Body.String(), -1) {
		series[m[1]+`{job="openid",instance="a:9464",`+m[2]+"}"] = m[3]
	}
	return series
}

type object = map[string]any

// unitTest returns the scenario as a test of "promtool test rules": which alerts fire
// in each phase, and that no panel of the dashboard is empty.
func (s *scenario) unitTest(t *testing.T, panels []string) object {
	var input, exprs []object
	for id, values := range s.live(t) {
		input = append(input, object{"series": id, "values": strings.Join(values, " ")})
	}
	begin := 0
	for _, p := range s.phases {
		var samples []object
		for _, alert := range p.firing {
			samples = append(samples, object{"labels": fmt.Sprintf(`{alertname=%q}`, alert), "value": 1})
		}
		exprs = append(exprs, object{
			"expr":        fmt.Sprintf(`count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[%dm]))`, p.until-begin-1),
			"eval_time":   fmt.Sprintf("%dm", p.until),
			"exp_samples": samples,
		})
		begin = p.until
	}
	for _, expr := range panels { // an empty answer makes absent answer
		exprs = append(exprs, object{"expr": fmt.Sprintf("absent(%s)", expr), "eval_time": "30m", "exp_samples": nil})
	}
	return object{"name": s.name, "interval": "1m", "input_series": input, "promql_expr_test": exprs}
}

// panels returns the queries of the dashboard, with its variables set.
func panels(t *testing.T) (exprs []string) {
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	variables := strings.NewReplacer("$job", "openid", "$instance", ".*", "$__rate_interval", "4m",
		" == 0) or vector(0)", ")") // without its default, which is never empty
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, variables.Replace(target.Expr))
		}
	}
	require.NotEmpty(t, exprs)
	return exprs
}

// TestAlerts has Prometheus itself judge what the server exported in each scenario.
func TestAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		testkit.Missing(t, "promtool", "apt-get install prometheus")
	}
	rules, err := filepath.Abs("alerts.yaml")
	require.NoError(t, err)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "test.yaml")
			data, err := json.Marshal(object{"rule_files": []string{rules}, "evaluation_interval": "1m",
				"tests": []object{s.unitTest(t, panels(t))}}) // JSON is YAML
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, data, 0o600))
			out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}
