package awsfake

import (
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// AWS's quotas for an account in a region, in calls per second (Secrets Manager User Guide,
// "AWS Secrets Manager quotas"), and its prices (aws.amazon.com/secrets-manager/pricing).
const (
	readsPerSecond   = 10_000 // GetSecretValue and DescribeSecret
	createsPerSecond = 50     // CreateSecret
	writesPerSecond  = 50     // PutSecretValue and UpdateSecretVersionStage together

	usdPerCall        = 0.05 / 10_000
	usdPerSecretMonth = 0.40
	hoursOfMonth      = 730
)

// Limit gives the account a share of AWS's quotas: 1, or less if there are other callers. A
// call over a quota is throttled. In addition, each read sees the secrets as they were up to
// stale ago, since AWS is eventually consistent: concurrent reads can see different states,
// and a later read can see an earlier state.
func (s *Server) Limit(share float64, stale time.Duration) {
	limiter := func(perSecond float64) *rate.Limiter {
		return rate.NewLimiter(rate.Limit(share*perSecond), max(1, int(share*perSecond)))
	}
	reads, writes := limiter(readsPerSecond), limiter(writesPerSecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale = stale
	s.quotas = map[string]*rate.Limiter{"GetSecretValue": reads, "DescribeSecret": reads, "CreateSecret": limiter(createsPerSecond),
		"PutSecretValue": writes, "UpdateSecretVersionStage": writes}
}

// overQuota reports whether a call exceeds its quota.
func (s *Server) overQuota(action string) bool {
	quota := s.quotas[action]
	if quota == nil || quota.Allow() {
		return false
	}
	s.calls["throttled"]++
	return true
}

// behind returns the age of the state that a read sees.
func (s *Server) behind() time.Duration {
	if s.stale > 0 {
		return s.lag + rand.N(s.stale) //nolint:gosec // not a secret
	}
	return s.lag
}

// Cost returns the price in USD of all calls so far, including rejected ones, and of storing
// the secrets.
func (s *Server) Cost() (usd float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	usd = usdPerCall * float64(s.calls[""])
	for name := range s.secrets {
		if sec := s.present(name); sec != nil && !sec.deleted {
			usd += usdPerSecretMonth * time.Since(sec.made).Hours() / hoursOfMonth
		}
	}
	return usd
}
