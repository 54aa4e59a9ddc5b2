package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// importCmd brings in keys that are to sign, each with its certificate, whose dates say
// when. Whatever no longer signs stays trusted for a while, so that no token is lost.
type importCmd struct {
	Files []string `arg:"" type:"existingfile" name:"file" predictor:"file" help:"PEM with private keys and their certificates, in one file or several; or a PFX (PKCS#12)."`
	storeFlags
	newSecretFlags
	Keep         days   `default:"30d" placeholder:"TIME" help:"How long the tokens of a key that does not sign any more are accepted, up to 730d: as long as its last token lives."`
	PasswordFile string `type:"existingfile" predictor:"file" placeholder:"PATH" help:"File with the PFX's password. Otherwise it is taken from FLEETKEY_PFX_PASSWORD, or asked for."`
	consent
}

const (
	maxKeep = 2 * 365 * 24 * time.Hour
	spare   = 2 << 10 // of the bundle, in bytes, beside two more keys
)

const aboutFormer = "The store knows a key by the kid above and no other. Another system may name it otherwise (x5t, or SHA-1 in hexadecimal) or\n" +
	"write another iss. If it does, put its certificate into Config.Former of all servers until its last token has ended:\n" +
	"\tFormer: []fleetkey.Former{{Certificate: certificate, Issuer: \"https://OLD-ISSUER\"}}"

const onlyFormer = "a certificate without its private key cannot sign, so it does not go into the store. To accept the tokens of its system, " +
	"put it into Config.Former of all servers: fleetkey.Former{Certificate: certificate} (see docs/migrating.md)"

// Run is called by kong.
func (c *importCmd) Run(a *app) error {
	if keep := time.Duration(c.Keep); keep <= 0 || keep > maxKeep {
		return usageError("--keep must be more than 0 and at most 730d")
	}
	imported, err := c.read(a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	store, err := c.open(ctx, c.newSecretFlags)
	if err != nil {
		return err
	}
	there := &loaded{name: name(store), set: &keyset.Set{}}
	if found, err := read(ctx, store); err == nil {
		there = found
	} else if !errors.Is(err, fleetkey.ErrNotExist) {
		return err
	}
	now := time.Now()
	next := merge(there.set, imported, now, time.Duration(c.Keep))
	if signing, _ := next.Signing(now); signing == nil {
		return fmt.Errorf("after this import, %s could not sign: %w (create a key with fleetkey init, and put the imported certificate into Config.Former)",
			there.name, next.WhyNoKey(now))
	}
	bundle, err := encode(next)
	if err != nil {
		return err
	}
	report := explain(there, imported, next, now)
	if there.version != "" {
		if bytes.Equal(bundle, there.bundle) {
			a.printf("%sNothing was changed.\n", report)
			return nil
		}
		a.note("%s", strings.TrimSuffix(report, "\n"))
		if err := c.confirm(a, "change the keys of "+there.name+" so"); err != nil {
			return err
		}
	}
	saving, done := context.WithTimeout(a.ctx, a.timeout) // the answer may have taken its time
	defer done()
	if _, err := store.Save(saving, bundle, there.version); err != nil {
		return err
	}
	a.printf("Imported into %s:\n%s", there.name, report)
	a.note(aboutFormer)
	return nil
}

// read reads the files as one, so that a key may come apart from its certificate.
func (c *importCmd) read(a *app) (*keyset.Set, error) {
	var all brought
	for _, path := range c.Files {
		if err := all.read(path, func() (string, error) { return c.password(a, path) }); err != nil {
			return nil, err
		}
	}
	set, bare, err := all.set()
	if err != nil {
		return nil, err
	}
	for _, cert := range bare {
		subject := jws.Quote(cert.Subject.String())
		switch {
		case set.Find(jws.Thumbprint(cert.PublicKey)) != nil:
			a.note("Left out an older certificate of %s: if tokens name the key by it, put it into Config.Former.", subject)
		case len(set.Keys) == 0:
			return nil, fmt.Errorf("%s: %s", subject, onlyFormer)
		case slices.ContainsFunc(all.certificates, func(other *x509.Certificate) bool {
			return bytes.Equal(other.RawIssuer, cert.RawSubject) && !bytes.Equal(other.RawSubject, cert.RawSubject)
		}):
			a.note("Left out %s: it is the certificate of an authority.", subject)
		default:
			a.note("Left out %s: %s.", subject, onlyFormer)
		}
	}
	if len(set.Keys)+len(set.Retired)+len(set.Revoked) == 0 {
		return nil, errors.New("there is no private key to import")
	}
	return set, nil
}

// merge returns the set that a store is to hold. What it says about a key already stays,
// and so do all revocations. The certificates' dates decide who signs. A key that signs no
// more, because another one takes over, is retired by name: a successor's certificate may
// have begun long ago, and dates alone would end the trust at once.
func merge(there, imported *keyset.Set, now time.Time, keep time.Duration) *keyset.Set {
	keys, retired := slices.Clone(there.Keys), slices.Clone(there.Retired)
	for _, k := range imported.Keys {
		if !there.Mentions(k.ID) {
			keys = append(keys, k)
		}
	}
	for _, r := range imported.Retired {
		if latest := now.Add(maxKeep).Truncate(time.Second); r.Until.After(latest) {
			r.Until = latest
		}
		if !there.Mentions(r.ID) {
			retired = append(retired, r)
		}
	}
	revoked := slices.Concat(there.Revoked, imported.Revoked)
	all := keyset.New(keys, retired, revoked)
	before, _ := there.Signing(now)
	signing, _ := all.Signing(now)
	if signing == nil {
		return all
	}
	retired = all.Retired
	for _, k := range all.Keys {
		ours := there.Find(k.ID) != nil
		if k != signing && !k.Cert.NotBefore.After(now) && (!ours || k == before) {
			retired = append(retired, keyset.Retired{ID: k.ID, Alg: k.Alg, Public: k.Public, Until: now.Add(keep).Truncate(time.Second)})
		}
	}
	return keyset.New(all.Keys, retired, all.Revoked)
}

// encode returns the bundle of a set that servers can read, and that leaves room for a
// rotation and a revocation.
func encode(set *keyset.Set) ([]byte, error) {
	bundle, err := set.Encode()
	if err != nil {
		return nil, err
	}
	if _, err := keyset.Parse(bundle); err != nil {
		return nil, err
	}
	largest := 0
	for _, k := range set.Keys {
		one, err := keyset.New([]*keyset.Key{k}, nil, nil).Encode()
		if err != nil {
			return nil, err
		}
		largest = max(largest, len(one))
	}
	if most := keyset.MaxBundleSize - 2*largest - spare; len(bundle) > most {
		return nil, fmt.Errorf("the bundle would have %d bytes; import fills it up to %d, since a rotation and a revocation need the rest", len(bundle), most)
	}
	return bundle, nil
}

// explain says what becomes of each imported key, and of the one that signed until now.
func explain(there *loaded, imported, next *keyset.Set, now time.Time) string {
	var out strings.Builder
	for _, k := range imported.Keys {
		fmt.Fprintf(&out, "%s (%s, %s) %s.\n", k.ID, k.Alg.Name, jws.Quote(k.Cert.Subject.String()), fate(there.set, next, k.ID, now))
	}
	for _, r := range imported.Retired {
		fmt.Fprintf(&out, "%s (%s) %s.\n", r.ID, r.Alg.Name, fate(there.set, next, r.ID, now))
	}
	if n := len(next.Revoked) - len(there.set.Revoked); n > 0 {
		fmt.Fprintf(&out, "%d revocations come along: %s.\n", n, strings.Join(imported.Revoked, ", "))
	}
	before, _ := there.set.Signing(now)
	if signing, _ := next.Signing(now); before != nil && signing != before {
		fmt.Fprintf(&out, "%s, which has signed until now, %s.\n", before.ID, fate(&keyset.Set{}, next, before.ID, now))
	}
	return out.String()
}

func fate(there, next *keyset.Set, id string, now time.Time) string {
	signing, _ := next.Signing(now)
	switch k := next.Find(id); {
	case there.IsRevoked(id):
		return "was REVOKED here and stays out; its tokens are refused for good"
	case next.IsRevoked(id):
		return "is REVOKED; its tokens are refused for good"
	case there.Mentions(id):
		return "is in the store already, and nothing changes for it"
	case k != nil && k == signing:
		return "signs now; its certificate ends at " + stamp(k.Cert.NotAfter)
	case k != nil:
		return "begins to sign at " + stamp(k.Cert.NotBefore)
	}
	if i := slices.IndexFunc(next.Retired, func(r keyset.Retired) bool { return r.ID == id }); i >= 0 {
		return "does not sign; its tokens are accepted until " + stamp(next.Retired[i].Until)
	}
	return "is left out"
}
