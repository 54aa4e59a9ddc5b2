package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
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
	fault    func(minute int, op fleetkeytest.Op) error
	phases   []phase
}

// A phase ends at a minute, and says which alerts have fired in it and no others.
type phase struct {
	until  int
	firing []string
}

const hour = 60 // minutes

// quick is a rotation that takes hours: the next key is due after two, and
// without the store a server issues tokens for two hours less four minutes.
var quick = fleetkey.Rotation{Every: 3 * time.Hour, Announce: time.Hour, Retain: 2 * time.Hour}

func fails(op fleetkeytest.Op, from, to int) func(int, fleetkeytest.Op) error {
	return func(minute int, o fleetkeytest.Op) error {
		if o == op && from <= minute && minute < to {
			return fleetkey.ErrUnavailable
		}
		return nil
	}
}

var scenarios = []scenario{
	{
		name: "two rotations without a fault", minutes: 8 * hour,
		rotation: quick,
		phases:   []phase{{8 * hour, nil}},
	},
	{
		name: "the store cannot be read for an hour", minutes: 3 * hour,
		fault: fails(fleetkeytest.OpLoad, hour, 2*hour),
		phases: []phase{
			{hour + 25, nil}, {2*hour + 5, []string{"FleetkeyStoreUnreachable"}}, {3 * hour, nil},
		},
	},
	{
		name: "the store cannot be written when a rotation is due", minutes: 9 * hour,
		rotation: quick,
		fault:    fails(fleetkeytest.OpSave, 1, 6*hour),
		phases: []phase{
			{3*hour + 10, nil}, {8 * hour, []string{"FleetkeyRotationOverdue"}}, {9 * hour, nil},
		},
	},
	{
		name: "a key that nobody replaces, from 90 days before its end", minutes: 4 * hour,
		fromEnd: 90*24*time.Hour + 2*time.Hour,
		phases:  []phase{{3*hour - 5, nil}, {4 * hour, []string{"FleetkeyKeyNearEnd"}}},
	},
	{
		name: "the last hours of that key", minutes: 4 * hour,
		fromEnd: 3 * time.Hour,
		phases: []phase{
			{hour - 5, nil}, // the first scrape was only now, and the alert waits an hour
			{hour + 50, []string{"FleetkeyKeyNearEnd"}},
			{3*hour + 10, []string{"FleetkeyCannotIssue", "FleetkeyKeyNearEnd"}},
			{4 * hour, []string{"FleetkeyCannotIssue"}},
		},
	},
	{
		name: "a rotating server cut off for hours", minutes: 3 * hour,
		rotation: quick,
		fault:    fails(fleetkeytest.OpLoad, 10, 3*hour),
		phases: []phase{
			{35, nil}, {2*hour + 2, []string{"FleetkeyStoreUnreachable"}},
			{3 * hour, []string{"FleetkeyCannotIssue", "FleetkeyStoreUnreachable"}},
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
		traffic: func(int) (int, int) { return 0, 3 },
		phases:  []phase{{2 * hour, nil}},
	},
}

// live goes through a scenario and returns each series, as one value a minute.
func (s *scenario) live(t *testing.T) map[string][]string {
	series := map[string][]string{}
	synctest.Test(t, func(t *testing.T) {
		var minute atomic.Int64
		store := fleetkeytest.NewStore()
		store.SetHook(func(c fleetkeytest.Call) (f fleetkeytest.Fault) {
			if s.fault != nil {
				f.Err = s.fault(int(minute.Load()), c.Op)
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
			record(series, m, scrape(t, server))
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
		require.Equal(t, http.StatusOK, get(t, server, "/hello", token).Code)
	}
	for range bad {
		require.Equal(t, http.StatusUnauthorized, get(t, server, "/hello", "junk").Code)
	}
}

// record adds a minute's scrape to the series.
func record(series map[string][]string, minute int, families map[string]*dto.MetricFamily) {
	for name, family := range families {
		for _, m := range family.Metric {
			labels := []string{`job="openid"`, `instance="a:9464"`}
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			id := name + "{" + strings.Join(labels, ",") + "}"
			for len(series[id]) < minute {
				series[id] = append(series[id], "_")
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() // one of them
			series[id] = append(series[id], strconv.FormatFloat(value, 'f', -1, 64))
		}
	}
}

type object = map[string]any

// unitTest returns the scenario as a test of "promtool test rules".
func (s *scenario) unitTest(t *testing.T, d dashboard) object {
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
	variables := strings.NewReplacer("$job", "openid", "$instance", ".*", "$__rate_interval", "4m")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, object{ // an empty answer makes absent answer
				"expr": fmt.Sprintf("absent(%s)", variables.Replace(target.Expr)), "eval_time": "30m", "exp_samples": nil,
			})
		}
	}
	return object{"name": s.name, "interval": "1m", "input_series": input, "promql_expr_test": exprs}
}

// TestAlerts has Prometheus itself judge what the server exported in each
// scenario: which alerts fire, and that no panel of the dashboard is empty.
func TestAlerts(t *testing.T) {
	var fired []string
	for _, s := range scenarios {
		for _, p := range s.phases {
			fired = append(fired, p.firing...)
		}
	}
	for alert := range alertRules(t) {
		require.True(t, slices.Contains(fired, alert), "no scenario makes %s fire", alert)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		testkit.Missing(t, "promtool", "apt-get install prometheus")
	}
	d := readDashboard(t)
	rules, err := filepath.Abs("alerts.yaml")
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", rules).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "test.yaml")
			data, err := json.Marshal(object{"rule_files": []string{rules}, "evaluation_interval": "1m",
				"tests": []object{s.unitTest(t, d)}}) // JSON is YAML
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, data, 0o600))
			out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}
