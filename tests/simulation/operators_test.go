package simulation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // names a certificate
	"crypto/x509"
	"encoding/base64"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// edit does something to the store behind the back of the fleet.
func (m *model) edit(do func()) {
	m.note(func(m *model) { m.editing = true })
	do()
	m.observe()
	m.note(func(m *model) { m.editing = false })
}

// rollBack puts the store's last version back, if the announcement of a key was the last
// change.
func (m *model) rollBack(k *keyState) {
	m.mu.Lock()
	previous := m.previous
	had := func(v fleetkey.Version) bool {
		for _, in := range m.contents[v].keys {
			if in.ID == k.id {
				return true
			}
		}
		return false
	}
	possible := previous != "" && had(m.version) && !had(previous)
	m.mu.Unlock()
	if possible {
		m.edit(func() { m.f.cell.RollBack(previous) })
	}
}

// swap puts the bundle of another fleet in the place of ours.
func (f *fleet) swap() {
	bundle := testkit.ForeignBundle(f.t, f.sc.policy)
	f.model.edit(func() { f.cell.Set(bundle) })
}

// clocks are those of an instance: a wall clock that is off, and a monotonic clock that
// stands still while the machine is suspended.
type clocks struct {
	in     *instance
	offset time.Duration
}

func (c clocks) Now() time.Time { return time.Now().Add(c.offset) }

func (c clocks) Monotonic() time.Duration {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	until := time.Now()
	if !c.in.fell.IsZero() {
		until = c.in.fell
	}
	return until.Sub(c.in.f.end.Add(-c.in.f.sc.span)) - c.in.slept
}

func (in *instance) asleep() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return !in.fell.IsZero()
}

func (in *instance) wake() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.fell.IsZero() {
		in.slept, in.fell = in.slept+time.Since(in.fell), time.Time{}
	}
}

// sleep suspends an instance. Its first act afterwards is to sign and to verify.
func (f *fleet) sleep(in *instance, d time.Duration) {
	if in.signer.Load() == nil || in.asleep() {
		return
	}
	f.cutOff(in, d)
	in.mu.Lock()
	in.fell = time.Now()
	in.mu.Unlock()
	f.after(d, func() {
		in.wake()
		f.issue(in, true)
	})
}

// everyNight suspends every fifth instance.
func (f *fleet) everyNight() {
	if f.sc.sleepEvery == 0 || time.Now().After(f.end) {
		return
	}
	for i := 4; i < len(f.instances); i += 5 {
		f.after(f.upTo(2*time.Hour), func() { f.sleep(f.instances[i], 6*time.Hour+f.upTo(4*time.Hour)) })
	}
	f.after(day, f.everyNight)
}

// A former is another system. It renews its certificate, and a deployment makes that
// known long before the old one ends.
type former struct {
	private       *ecdsa.PrivateKey
	certificates  [2]*x509.Certificate
	deploy, known time.Time
}

func newFormer(f *fleet) *former {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	begin, part := time.Now(), f.sc.span/6
	old := &former{private: private, deploy: begin.Add(part), known: begin.Add(part + part/6 + day)}
	for i := range old.certificates {
		template := &x509.Certificate{NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(3*part + time.Duration(i)*year*9)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
		if err != nil {
			panic(err)
		}
		if old.certificates[i], err = x509.ParseCertificate(der); err != nil {
			panic(err)
		}
	}
	return old
}

// at returns the configuration up to a certificate.
func (o *former) at(last int) (all []fleetkey.Former) {
	for _, c := range o.certificates[:last+1] {
		all = append(all, fleetkey.Former{Certificate: c})
	}
	return all
}

// issueFormer checks a token that the other system signs, under the name of one of its
// certificates. A token ends with the trust in that name, by the fastest clock.
func (f *fleet) issueFormer() {
	if f.former == nil {
		return
	}
	which := 0
	if now := time.Now(); now.After(f.former.known) && (f.chance(0.5) || now.After(f.former.certificates[0].NotAfter)) {
		which = 1
	}
	certificate := f.former.certificates[which]
	digest := sha1.Sum(certificate.Raw) //nolint:gosec // as above
	exp := time.Now().Add(f.upTo(8 * time.Hour)).Truncate(time.Second)
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": testkit.Issuer, "aud": testkit.Issuer, "exp": exp.Unix()})
	t.Header["kid"] = base64.RawURLEncoding.EncodeToString(digest[:])
	raw, err := t.SignedString(f.former.private)
	if err != nil {
		panic(err)
	}
	tok := &token{raw: raw, key: &keyState{id: t.Header["kid"].(string)}, at: time.Now(), exp: exp, loaded: time.Now(), former: true}
	if end := certificate.NotAfter.Add(-f.sc.clocks); exp.After(end) {
		tok.exp = end // of the trust, though clients have the key in their JWKS for a while
		f.at(certificate.NotAfter.Add(f.sc.policy.ClockSkew), func() { f.verify(f.pick(), tok) })
		return
	}
	f.checkLater(tok, false)
}
