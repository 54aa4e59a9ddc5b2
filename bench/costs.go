package main

import (
	"fmt"
	"time"
)

// Prices of AWS Secrets Manager, https://aws.amazon.com/secrets-manager/pricing/.
const (
	usdPerCall   = 0.05 / 10_000
	usdPerSecret = 0.40 // a month
	sooner       = 0.95 // of Config.RefreshEvery, on average
	month        = 30 * 24 * time.Hour
)

// costs is computed, not measured: a running instance makes one GetSecretValue
// each Config.RefreshEvery, or up to a tenth sooner, and nothing else.
func costs(_ plan, out *page) error {
	intervals := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}
	fmt.Fprintf(out, `
## Cost a month on AWS Secrets Manager

Computed: USD 0.05 for 10,000 calls (https://aws.amazon.com/secrets-manager/pricing/),
one call by each instance every 0.95 Config.RefreshEvery (the average), 30 days. The
secret itself, USD %.2f, comes on top once for the whole fleet.

| instances |`, usdPerSecret)
	for _, every := range intervals {
		fmt.Fprintf(out, " every %g min |", every.Minutes())
	}
	fmt.Fprint(out, "\n|---|---|---|---|---|\n")
	for _, instances := range []int{1, 3, 10, 100, 1_000} {
		fmt.Fprintf(out, "| %d |", instances)
		for _, every := range intervals {
			calls := float64(month) / float64(every) / sooner
			fmt.Fprintf(out, " USD %.3f |", float64(instances)*calls*usdPerCall)
		}
		fmt.Fprintln(out)
	}
	return nil
}
