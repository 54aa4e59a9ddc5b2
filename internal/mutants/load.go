package main

// Rotation, and who signs when.
var rotationMutants = []mutant{
	{name: "rotation-at-once", rows: "L1 L3", breaks: "a new key signs at once", file: "rotation.go",
		old: `begin := now.Add(cfg.Rotation.Announce)`, new: `begin := now.Add(-2 * cfg.ClockSkew)`, test: `TestRotate`},
	{name: "rotation-no-retain", rows: "L1", breaks: "a key is dropped when its successor takes over", file: "keyset.go",
		old: `retired := next.cert.NotBefore.Add(retain)`, new: `retired := next.cert.NotBefore.Add(0 * retain)`, test: `TestSchedule`},
	{name: "rotation-oldest-signs", rows: "L1", breaks: "the oldest key goes on signing", file: "keyset.go",
		old: `for _, k := range s.keys {
		if k.private != nil && !k.cert.NotBefore.After(at)`, new: `for i := range s.keys {
		k := s.keys[len(s.keys)-1-i]
		if k.private != nil && !k.cert.NotBefore.After(at)`, test: `TestSchedule`},
	{name: "rotation-early", rows: "L1", breaks: "an announced key already signs", file: "keyset.go",
		old: `if k.private != nil && !k.cert.NotBefore.After(at) && at`, new: `if k.private != nil && at`, test: `TestSchedule`},
	{name: "rotation-stale", rows: "L1", breaks: "an instance that is cut off signs for ever", file: "claims.go",
		old: `age > limit {`, new: `age > 1000*limit {`, test: `TestInstanceCutOff`},
	{name: "rotation-stale-skew", rows: "L1", breaks: "the fastest clock is forgotten where an instance has to stop", file: "claims.go",
		old: `3*s.cfg.ClockSkew - staleRead`, new: `2*s.cfg.ClockSkew - staleRead`, test: `TestFoundCutOffOnTheFastestClock`},
	{name: "rotation-slow-load", rows: "L1", breaks: "a slow load counts as fresh as its end", file: "refresh.go",
		old: "\twait := s.record(good, err)", new: "\tgood.loaded, good.wall = time.Now(), s.cfg.Now().Round(0)\n\twait := s.record(good, err)", test: `TestFoundSlowLoadIsOld`},
	{name: "rotation-bound-announce", rows: "L1", breaks: "a policy may announce a key for too short a time", file: "config.go",
		old: `return 2*c.RefreshEvery + c.JWKSMaxAge + 2*c.ClockSkew`, new: `return c.RefreshEvery + c.JWKSMaxAge`, test: `TestBounds/announced`},
	{name: "rotation-bound-retain", rows: "L1", breaks: "a policy may drop a key before its last token ends", file: "config.go",
		old: `if need := c.MaxTokenTTL + 2*c.ClockSkew; c`, new: `if need := c.MaxTokenTTL; c`, test: `TestBounds/retained`},
	{name: "rotation-key-end", rows: "L1", breaks: "a token is issued that outlives its key's certificate", file: "claims.go",
		old: `now.After(last) {`, new: `now.After(k.until) {`, test: `TestCertificateEnds`},
	{name: "rotation-too-late", rows: "L1", breaks: "a successor is announced when the key has already to go", file: "rotation.go",
		old: `return due.Add(-cfg.Rotation.Announce)`, new: `return due`, test: `TestLifeOfAKey`},
	{name: "rotation-jwks", rows: "L1 L3 L4", breaks: "the key set does not show a key until it signs", file: "snapshot.go",
		old: "\t\tif !now.Before(k.until) {\n\t\t\tcontinue", new: "\t\tif !now.Before(k.until) || k.cert.NotBefore.After(now) {\n\t\t\tcontinue", test: `FuzzJWKS`},
	{name: "revoke-kept", rows: "L6 CVE-2025-22149", breaks: "a refresh adds keys and removes none", file: "snapshot.go",
		old: ` || unused || slices.Contains(revoked, k.id) {`, new: ` || unused || slices.Contains(revoked, "") {`, test: `TestVanishedKeys/revoked`},
	{name: "revoke-no-successor", rows: "L6", breaks: "nothing signs after the signing key is revoked", file: "rotation.go",
		old: "\tif needed {\n", new: "\tif needed && len(left.keys) > 0 {\n", test: `TestRevoke/the_only_key,_operator's_clock_off_by_0s`},
	{name: "revoke-other-name", rows: "L6", breaks: "a revoked key goes on under its other kid", file: "rotation.go",
		old: `if thumbprint(k.cert) != thumb {`, new: `if k.id != lost.id {`, test: `TestRevokeUnderEveryName`},
}

// What comes with many requests.
var loadMutants = []mutant{
	{name: "load-unknown-kid", rows: "L2", breaks: "every made-up kid costs a call to the store", file: "refresh.go",
		old: `&& s.unknown.Allow() {`, new: `{`, test: `TestUnknownKeyFlood`},
	{name: "load-unknown-never", rows: "L3", breaks: "a key that is not known yet is never looked for", file: "verify.go",
		old: `errors.Is(err, ErrUnknownKey) && s.lookForKey(ctx)`, new: `errors.Is(err, ErrUnknownKey) && ctx == nil`, test: `TestUnknownKeyIsLookedFor`},
	{name: "load-flight", rows: "L2", breaks: "those who come while the store is asked are refused", file: "refresh.go",
		old: "\t\tf = s.flying\n", new: "\t\tf = nil\n", test: `TestUnknownKeyBurstSharesOneLoad`},
	{name: "load-no-context", rows: "L2 A3", breaks: "Verify waits for the store longer than its caller", file: "refresh.go",
		old: "\tcase <-f.done:\n\t\treturn f.err == nil\n\tcase <-ctx.Done():\n\t\treturn false\n\t}", new: "\tcase <-f.done:\n\t\treturn f.err == nil\n\t}", test: `TestUnknownKeyWhileTheStoreHangs`},
	{name: "load-announced", rows: "L3", breaks: "tokens of an announced key are refused, by instances whose clock is behind", file: "snapshot.go",
		old: "\tfor _, k := range s.keys {\n\t\ts.byHeader[k.header] = k\n", new: "\tfor _, k := range s.keys {\n\t\tif k.cert.NotBefore.After(now) {\n\t\t\tcontinue\n\t\t}\n\t\ts.byHeader[k.header] = k\n", test: `TestVerifyTrustsByTheSchedule`},
	{name: "load-etag", rows: "L4", breaks: "the ETag is that of another body", file: "snapshot.go",
		old: `digest := sha256.Sum256(s.jwks)`, new: `digest := sha256.Sum256([]byte(now.String()))`, test: `TestJWKSAnswers`},
	{name: "load-empty-jwks", rows: "L4", breaks: "an empty key set is served", file: "snapshot.go",
		old: `if len(set.Keys) == 0 {`, new: `if set.Keys == nil {
		set.Keys = []jose.JSONWebKey{}
	}
	if s.set == nil {`, test: `TestJWKSIsNeverEmpty`},
	{name: "load-jwks-gone", rows: "L4 X5", breaks: "the key set shows keys that are no longer trusted", file: "snapshot.go",
		old: "\t\tif !now.Before(k.until) {\n\t\t\tcontinue", new: "\t\tif k.until.IsZero() {\n\t\t\tcontinue", test: `FuzzJWKS`},
	{name: "load-jwks-old", rows: "L4", breaks: "the key set stays as it was while the store is away", file: "snapshot.go",
		old: ` || !s.changes.IsZero() && !now.Before(s.changes)`, new: ``, test: `TestJWKSDropsWhatIsGone`},
	{name: "load-race", rows: "L5", breaks: "a new key set is written over the old one in place", file: "signer.go",
		old: "\ts.current.Store(next)\n", new: "\tif old != nil {\n\t\t*old = *next\n\t} else {\n\t\ts.current.Store(next)\n\t}\n", test: `TestConcurrentUseDuringReloads`, race: true},
	{name: "load-shared-audience", rows: "L5", breaks: "callers share a token's slice", file: "token.go",
		old: `return slices.Clone(t.claims.audience)`, new: `return slices.Clip(t.claims.audience)`, test: `TestTokenCannotBeChanged`},
	{name: "load-close", rows: "L5 L8", breaks: "Close leaves the goroutine", file: "refresh.go",
		old: "\ts.stop()\n\t<-s.stopped\n", new: "\t_ = s.stop\n", test: `TestClose`},
	{name: "load-cost", rows: "L7", breaks: "a hostile token of any length is worked on", file: "verify.go",
		old: `if len(token) > MaxTokenSize {`, new: `if len(token) > 64*MaxTokenSize {`, test: `TestHostileTokens/^ES256_form`},
	{name: "load-cache-unbounded", rows: "L2", breaks: "a flood of valid tokens takes the place of those in use", file: "cache.go",
		old: `if n := old.seen.Load(); n < least {`, new: `if n := -old.seen.Load(); n < least {`, test: `TestCacheFlood`},
	{name: "load-cache-large", rows: "L2", breaks: "tokens of any size are remembered", file: "cache.go",
		old: "\tif c == nil || len(text) > maxCached {\n\t\treturn\n", new: "\tif c == nil {\n\t\treturn\n", test: `TestCacheKeepsOut/over_4_KiB`},
	{name: "load-cache-header", rows: "L2", breaks: "a remembered token keeps the request alive that it came with", file: "cache.go",
		old: `text: strings.Clone(text)`, new: `text: strings.TrimSpace(text)`, test: `TestCacheKeepsNoHeaderAlive`},
}
