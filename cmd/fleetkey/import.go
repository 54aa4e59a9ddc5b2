package main

import (
	"bytes"
	"cmp"
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

// importCmd imports keys that should sign. The dates of their certificates say when; a key
// without a certificate gets one and signs at once. Keys that no longer sign stay trusted
// for a while, so that no token is lost.
type importCmd struct {
	Files []string `arg:"" type:"existingfile" name:"file" predictor:"file" help:"Private keys and their certificates, in one or more files: PEM, PFX (PKCS#12), JWK, DER, or base64 of these."`
	storeFlags
	newSecretFlags
	Keep         days   `default:"30d" placeholder:"TIME" help:"How long to accept tokens of keys that no longer sign: the lifetime of their last token, at most 730d."`
	PasswordFile string `type:"existingfile" predictor:"file" placeholder:"PATH" help:"File with the password. Default: FLEETKEY_PFX_PASSWORD, or a prompt."`
	consent
}

const (
	maxKeep = 2 * 365 * 24 * time.Hour
	spare   = 2 << 10 // bytes left free in the bundle, besides two more keys
)

const aboutFormer = "The store knows each key only by the kid above. The other system may use another kid (x5t, or SHA-1 in hexadecimal) or\n" +
	"another iss. If it does, add the key to Config.Former of all servers until its last token has expired:\n" +
	"\tFormer: []fleetkey.Former{%s}"

const onlyFormer = "a certificate without its private key cannot sign, so it is not imported. To accept the tokens of its system, " +
	"add it to Config.Former of all servers: fleetkey.Former{Certificate: certificate} (see docs/migrating.md)"

func (c *importCmd) Run(a *app) error {
	if keep := time.Duration(c.Keep); keep <= 0 || keep > maxKeep {
		return usageError("--keep must be more than 0 and at most 730d")
	}
	imported, bare, err := c.read(a)
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
	if imported, bare, err = a.certify(there.set, imported, bare, now); err != nil {
		return err
	}
	next := merge(there.set, imported, now, time.Duration(c.Keep))
	if signing, _ := next.Signing(now); signing == nil {
		return fmt.Errorf("after this import, %s could not sign: %w (create a key with fleetkey init, and add the imported certificate to Config.Former)",
			there.name, next.WhyNoKey(now))
	}
	bundle, err := encode(next)
	if err != nil {
		return err
	}
	report := explain(there, imported, next, now)
	if there.version != "" {
		if bytes.Equal(bundle, there.bundle) {
			return a.stored(there, false, report+"Nothing was changed.\n")
		}
		a.note("%s", strings.TrimSuffix(report, "\n"))
		if err := c.confirm(a, "change the keys of "+there.name+" as shown"); err != nil {
			return err
		}
	}
	saving, done := context.WithTimeout(a.ctx, a.timeout) // confirming may have taken long
	defer done()
	version, err := store.Save(saving, bundle, there.version)
	if err != nil {
		return err
	}
	err = a.stored(&loaded{there.name, bundle, version, next}, true, "Imported into "+there.name+":\n"+report)
	a.noteFormer(imported, bare)
	return err
}

// noteFormer prints what to put into Config.Former, so that tokens of the other system stay
// valid, and which of its tokens no server can verify. A bare RSA key as Former.Key means
// RS256; PS256 requires the certificate that import created.
func (a *app) noteFormer(imported *keyset.Set, bare []broughtKey) {
	var entries []string
	for _, b := range bare {
		alg, err := jws.AlgorithmOf(b.Public(), b.pss)
		source := "Key: publicKey"
		switch {
		case b.subject != nil: // its certificate has expired
			entries = append(entries, `{Certificate: certificate, Issuer: "https://OLD-ISSUER", Until: lastToken}`)
			continue
		case b.pss:
			a.note("The JWK with kid %q is for PS256. Give Config.Former the certificate that was created for it: fleetkey export prints it.", b.kid)
			source = "Certificate: certificate"
		case b.alg != "" && err == nil && b.alg != alg.Name && (b.alg != "Ed25519" || alg.Name != "EdDSA"):
			a.note("The JWK with kid %q is for %s, which fleetkey does not verify: tokens that its system signed with it are rejected. Here the key signs %s.", b.kid, jws.Quote(b.alg), alg.Name)
		}
		entries = append(entries, fmt.Sprintf(`{%s, KeyID: %q, Issuer: "https://OLD-ISSUER"}`, source, cmp.Or(b.kid, "OLD-KID")))
	}
	if len(imported.Keys) > len(bare) || len(bare) == 0 {
		entries = append(entries, `{Certificate: certificate, Issuer: "https://OLD-ISSUER"}`)
	}
	a.note(aboutFormer, strings.Join(slices.Compact(slices.Sorted(slices.Values(entries))), ", "))
}

// read reads the files together, so that a key and its certificate may be in different
// files.
func (c *importCmd) read(a *app) (*keyset.Set, []broughtKey, error) {
	var all brought
	for _, path := range c.Files {
		if err := all.read(a, path, func() (string, error) { return c.password(a, path) }); err != nil {
			return nil, nil, err
		}
	}
	set, bare, rest, err := all.set()
	for i := 0; err == nil && i < len(rest); i++ {
		subject := jws.Quote(rest[i].Subject.String())
		switch {
		case all.has(rest[i]):
			a.note("Skipped an older certificate of %s: if tokens name the key by it, add it to Config.Former.", subject)
		case len(set.Keys) == 0:
			err = fmt.Errorf("%s: %s", subject, onlyFormer)
		case slices.ContainsFunc(all.certificates, func(other *x509.Certificate) bool {
			return bytes.Equal(other.RawIssuer, rest[i].RawSubject) && !bytes.Equal(other.RawSubject, rest[i].RawSubject)
		}):
			a.note("Skipped %s: it is a CA certificate.", subject)
		default:
			a.note("Skipped %s: %s.", subject, onlyFormer)
		}
	}
	switch {
	case err != nil || len(all.keys)+len(set.Retired)+len(set.Revoked) > 0:
	case all.unfit:
		err = errors.New("a public key, or one for encryption, cannot sign: to accept the tokens of its system, add it to Config.Former of all servers, as Key, with its KeyID")
	default:
		err = errors.New("there is no private key to import: give the file that contains it")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%q: %w", strings.Join(c.Files, ", "), err)
	}
	return set, bare, nil
}

// certify creates missing certificates: for keys that came without one and, if nothing else
// could sign, for the newest key whose certificate has expired, since IdentityServer signs
// with such keys. It returns all keys, and those it certified.
func (a *app) certify(there, imported *keyset.Set, bare []broughtKey, now time.Time) (*keyset.Set, []broughtKey, error) {
	keys := slices.Clone(imported.Keys)
	bare = slices.DeleteFunc(slices.Clone(bare), func(b broughtKey) bool {
		i := slices.IndexFunc(there.Keys, func(k *keyset.Key) bool { return b.is(k.Public) })
		if i >= 0 {
			keys = append(keys, there.Keys[i])
		}
		return i >= 0
	})
	all := keyset.New(slices.Concat(there.Keys, keys), slices.Concat(there.Retired, imported.Retired), slices.Concat(there.Revoked, imported.Revoked))
	if signing, _ := all.Signing(now); signing == nil && len(bare) == 0 {
		if i := slices.IndexFunc(keys, func(k *keyset.Key) bool { return all.Find(k.ID) != nil && !k.Cert.NotAfter.After(now) }); i >= 0 {
			a.note("The certificate of %s expired at %s.", keys[i].ID, stamp(keys[i].Cert.NotAfter))
			bare = append(bare, broughtKey{Signer: keys[i].Private, pss: keys[i].Alg.Name == "PS256", subject: keys[i].Cert.RawSubject})
			keys = slices.Delete(keys, i, i+1)
		}
	}
	made, err := freshKeys(bare, all.Keys, now)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range made {
		a.note("Created a certificate for %s.", k.ID)
	}
	return keyset.New(append(keys, made...), imported.Retired, imported.Revoked), bare, nil
}

// merge returns the set to save. It keeps everything the store says about a key, unless its
// certificate was renewed, and all revocations. The certificates' dates decide who signs. A
// key that another one replaces is retired explicitly: its successor's certificate may have
// begun long ago, and dates alone would end the trust at once.
func merge(there, imported *keyset.Set, now time.Time, keep time.Duration) *keyset.Set {
	keys, retired := slices.Clone(there.Keys), slices.Clone(there.Retired)
	for _, k := range imported.Keys {
		if old := there.Find(k.ID); old != nil && k.Cert.NotAfter.After(old.Cert.NotAfter) && !k.Cert.NotBefore.After(now) {
			keys[slices.Index(keys, old)] = k // renewed
		} else if !there.Mentions(k.ID) {
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
		if k != signing && !k.Cert.NotBefore.After(now) && (!ours || before != nil && k.ID == before.ID) {
			retired = append(retired, keyset.Retired{ID: k.ID, Alg: k.Alg, Public: k.Public, Until: now.Add(keep).Truncate(time.Second)})
		}
	}
	return keyset.New(all.Keys, retired, all.Revoked)
}

// encode returns the bundle of a set, if servers can read it and it has room for a rotation
// and a revocation.
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
		return nil, fmt.Errorf("the bundle would have %d bytes; import allows at most %d, to leave room for a rotation and a revocation", len(bundle), most)
	}
	return bundle, nil
}

// explain returns what happens to each imported key, and to the previous signing key.
func explain(there *loaded, imported, next *keyset.Set, now time.Time) string {
	var out strings.Builder
	for _, k := range imported.Keys {
		fmt.Fprintf(&out, "%s (%s, %s) %s.\n", k.ID, k.Alg.Name, jws.Quote(k.Cert.Subject.String()), fate(there.set, next, k.ID, now))
	}
	for _, r := range imported.Retired {
		fmt.Fprintf(&out, "%s (%s) %s.\n", r.ID, r.Alg.Name, fate(there.set, next, r.ID, now))
	}
	if n := len(next.Revoked) - len(there.set.Revoked); n > 0 {
		fmt.Fprintf(&out, "Imported revocations: %s.\n", strings.Join(imported.Revoked, ", "))
	}
	before, _ := there.set.Signing(now)
	if signing, _ := next.Signing(now); before != nil && signing.ID != before.ID {
		fmt.Fprintf(&out, "%s, the signing key until now, %s.\n", before.ID, fate(&keyset.Set{}, next, before.ID, now))
	}
	return out.String()
}

func fate(there, next *keyset.Set, id string, now time.Time) string {
	signing, _ := next.Signing(now)
	switch k := next.Find(id); {
	case there.IsRevoked(id):
		return "was REVOKED in this store and is not imported; its tokens are never accepted"
	case next.IsRevoked(id):
		return "is REVOKED; its tokens are never accepted"
	case k != nil && there.Find(id) != nil && !k.Cert.Equal(there.Find(id).Cert):
		return "now has a newer certificate, which ends at " + stamp(k.Cert.NotAfter)
	case there.Mentions(id):
		return "is already in the store and unchanged"
	case k != nil && k == signing:
		return "signs now; its certificate ends at " + stamp(k.Cert.NotAfter)
	case k != nil:
		return "begins to sign at " + stamp(k.Cert.NotBefore)
	}
	if i := slices.IndexFunc(next.Retired, func(r keyset.Retired) bool { return r.ID == id }); i >= 0 {
		return "does not sign; its tokens are accepted until " + stamp(next.Retired[i].Until)
	}
	return "is not imported"
}
