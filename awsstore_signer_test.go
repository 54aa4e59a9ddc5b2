package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// What a running Signer makes of the faults of AWS (fault matrix A1 to A11), where
// the store alone cannot tell: how often it calls, what it says, that it serves on,
// writes nothing, and recovers.

// A callLog notes when a client called.
type callLog struct {
	next  http.RoundTripper
	mu    sync.Mutex
	times []time.Time
}

func (l *callLog) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	l.times = append(l.times, time.Now())
	l.mu.Unlock()
	return l.next.RoundTrip(r)
}

// most returns the largest number of calls within a time.
func (l *callLog) most(within time.Duration) (n int) {
	for i, at := range l.times {
		for j := i; j < len(l.times) && l.times[j].Sub(at) < within; j++ {
			n = max(n, j-i+1)
		}
	}
	return n
}

// openLogged opens the secret by an SDK that tries again at once, and notes the
// calls.
func openLogged(t *testing.T, fake *awsfake.Server) (*fleetkey.AWSStore, *callLog) {
	l := &callLog{next: fake.HTTPClient().Transport}
	return openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
		o.Client = fake.Client(func(o *secretsmanager.Options) {
			o.HTTPClient = &http.Client{Transport: l}
		})
	}), l
}

// A1: throttled for 1, 10 and 1000 calls, or for half a day, an instance backs off:
// at most four loads in the first minute, of three calls each, and then one in
// five minutes. Instances that failed at the same moment do not come back at one.
func TestSignerOnAWS_A1_BacksOff(t *testing.T) {
	for _, calls := range []int{1, 10, 1000, 0} {
		t.Run(fmt.Sprint(calls, " calls"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				var fleet []*fleetkey.Signer
				var logs []*callLog
				for range 8 {
					store, l := openLogged(t, fake)
					fleet, logs = append(fleet, start(t, store, config())), append(logs, l)
				}
				token := issue(t, fleet[0])
				fake.Inject(awsfake.Throttle(calls))
				synctest.Wait()
				for _, l := range logs {
					l.mu.Lock()
					l.times = nil
					l.mu.Unlock()
				}
				for range 12 * 12 {
					time.Sleep(5 * time.Minute)
					now := time.Now()
					accepts(t, token, fleet[0]) // remembered
					accepts(t, issue(t, fleet[1]), fleet[0])
					require.Equal(t, now, time.Now(), "Issue and Verify do not wait")
					if token = issue(t, fleet[0]); calls == 1 {
						break
					}
				}
				synctest.Wait()
				var returns []time.Time
				for _, l := range logs {
					l.mu.Lock()
					seen := &callLog{times: slices.Clone(l.times)}
					l.mu.Unlock()
					require.LessOrEqual(t, seen.most(time.Minute), 4*3, "calls in a minute")
					if len(seen.times) > 30 {
						late := &callLog{times: seen.times[30:]}
						require.LessOrEqual(t, late.most(4*time.Minute), 3, "later on")
					}
					returns = append(returns, seen.times[max(0, len(seen.times)-1):]...)
				}
				slices.SortFunc(returns, time.Time.Compare)
				require.Len(t, slices.Compact(returns), len(returns), "at the same moment")
				fake.Heal()
				time.Sleep(6 * time.Minute)
				for _, s := range fleet {
					require.NoError(t, s.Status().LoadErr)
				}
			})
		})
	}
}

// A4, A10: what is no bundle is told by secret and version, serves on with the
// last good one, and is not overwritten, nor by a rotation that is due.
func TestSignerOnAWS_A4_A10_NotABundle(t *testing.T) {
	for name, value := range map[string]struct {
		text   string
		binary bool
		says   string
	}{
		"another application's": {text: `{"username":"web","password":"hunter2"}`, says: "no PEM block"},
		"empty JSON":            {text: `{}`, says: "no PEM block"},
		"64 KiB":                {text: strings.Repeat("A", fleetkey.MaxBundleSize), says: "no PEM block"},
		"bytes":                 {text: "\xff\x00\xfe", binary: true, says: "no PEM block"},
		"unknown schema":        {text: "-----BEGIN KEY SET-----\nAAAA\n-----END KEY SET-----\n", says: `unknown type "KEY SET"`},
		"an older schema":       {text: "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", says: "openssl pkcs8"},
		"cut off":               {text: string(pemBundle("a"))[:80], says: "not a complete PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				cfg := rotating()
				cfg.Rotation.Every = 2 * day
				s := start(t, openAWS(t, fake, awsName), cfg)
				token, good := issue(t, s), s.Status().Version
				in := &secretsmanager.PutSecretValueInput{SecretId: aws.String(awsName), SecretString: aws.String(value.text)}
				if value.binary {
					in.SecretString, in.SecretBinary = nil, []byte(value.text)
				}
				out, err := fake.Client().PutSecretValue(t.Context(), in)
				require.NoError(t, err)

				err = s.Refresh(t.Context())
				require.ErrorContains(t, err, fmt.Sprintf("version %s in AWS secret %s in eu-west-1 is not a key bundle: ", *out.VersionId, awsName))
				require.ErrorContains(t, err, value.says)
				require.NotContains(t, err.Error(), "hunter2")
				accepts(t, token, s)
				time.Sleep(day + 12*time.Hour) // a rotation is due
				accepts(t, issue(t, s), s)
				require.Equal(t, good, s.Status().Version)
				require.ErrorContains(t, s.Rotate(t.Context()), "is not a key bundle")
				require.ErrorContains(t, s.Revoke(t.Context(), s.SigningKey().KeyID), "is not a key bundle")
				_, err = fleetkey.NewSigner(t.Context(), openAWS(t, fake, awsName), cfg)
				require.ErrorContains(t, err, "is not a key bundle")
				require.Equal(t, 2, fake.Versions(awsName), "and nothing is written")
				require.Equal(t, 1, fake.Calls("CreateSecret"))
			})
		})
	}
}

// A5: credentials that are gone, and those that AWS no longer knows. They come
// back, and nobody has to restart anything.
func TestSignerOnAWS_A5_CredentialsComeBack(t *testing.T) {
	for name, c := range map[string]struct {
		fault *awsfake.Fault
		says  string
	}{
		"none":    {nil, "no AWS credentials: give the server a role"},
		"expired": {new(awsfake.Expired()), "the AWS credentials have expired: renew them"},
		"unknown": {new(apiError("UnrecognizedClientException", "The security token included in the request is invalid.")), "does not accept the credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake, gone := awsfake.New(), new(atomic.Bool)
				real := fake.Client().Options().Credentials
				s := start(t, openAWS(t, fake, awsName, func(o *fleetkey.AWSOptions) {
					o.Client = fake.Client(func(o *secretsmanager.Options) {
						o.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
							if gone.Load() {
								return aws.Credentials{}, errors.New("no EC2 IMDS role found")
							}
							return real.Retrieve(ctx)
						})
					})
				}), config())
				token := issue(t, s)
				if gone.Store(c.fault == nil); !gone.Load() {
					fake.Inject(*c.fault)
				}
				time.Sleep(6 * time.Minute)
				for what, err := range map[string]error{
					"load": s.Status().LoadErr, "rotate": s.Rotate(t.Context()), "revoke": s.Revoke(t.Context(), s.SigningKey().KeyID),
				} {
					require.ErrorContains(t, err, c.says, what)
					require.ErrorContains(t, err, "AWS secret "+awsName+" in eu-west-1", what)
				}
				require.Contains(t, fmt.Sprint(s.Status().Warnings()), c.says)
				time.Sleep(12 * time.Hour)
				fresh := issue(t, s)
				accepts(t, fresh, s)
				require.Equal(t, kidOf(t, token), kidOf(t, fresh))
				gone.Store(false)
				fake.Heal()
				time.Sleep(6 * time.Minute)
				require.NoError(t, s.Status().LoadErr)
				require.NoError(t, s.Rotate(t.Context()))
			})
		})
	}
}

// A6: a role that may only read serves all there is to serve, and says in the
// error, in health and in the log what it lacks, when a rotation is due and by hand.
func TestSignerOnAWS_A6_ReadOnlyRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awsfake.New()
		cfg, log := rotating(), new(logBuffer)
		cfg.Rotation.Every = 3 * day
		require.NoError(t, start(t, openAWS(t, fake, awsName), cfg).Close()) // the first one may create
		fake.Enforce(&awsfake.Policy{Actions: []string{"secretsmanager:GetSecretValue"}, Resources: []string{awsARN + "indicium/openid-server-*"}})
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		s := start(t, openAWS(t, fake, awsName), cfg)
		time.Sleep(2*day + time.Hour)
		accepts(t, issue(t, s), s)
		require.Contains(t, jwks(t, s), s.SigningKey().KeyID)

		const lacks = "allow secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage on arn:aws:secretsmanager:eu-west-1:<account-id>:secret:" + awsName + "*"
		for what, err := range map[string]error{
			"due": s.Status().RotationErr, "rotate": s.Rotate(t.Context()), "revoke": s.Revoke(t.Context(), s.SigningKey().KeyID),
		} {
			require.ErrorIs(t, err, fleetkey.ErrAccessDenied, what)
			require.ErrorContains(t, err, lacks, what)
		}
		code, body := health(t, s)
		require.Equal(t, http.StatusOK, code)
		require.Contains(t, body, "could not be rotated")
		require.Contains(t, log.String(), "cannot rotate the signing key")
		require.Equal(t, 1, fake.Versions(awsName))
		require.Zero(t, fake.Calls("DescribeSecret"), "there is no such permission to lack")
	})
}

// A8, A9: an operator deletes the secret under a fleet whose rotation is due, for
// good or with a recovery window. For days nobody creates anything, running or
// starting, and what was restored is read again.
func TestSignerOnAWS_A8_A9_DeletedUnderTheFleet(t *testing.T) {
	for name, forGood := range map[string]bool{"A8 for good": true, "A9 with a recovery window": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := awsfake.New()
				cfg := rotating()
				cfg.Rotation.Every = 2 * day
				fleet := []*fleetkey.Signer{start(t, openAWS(t, fake, awsName), cfg), start(t, openAWS(t, fake, awsName), cfg)}
				time.Sleep(23 * time.Hour)
				del := &secretsmanager.DeleteSecretInput{SecretId: aws.String(awsName), ForceDeleteWithoutRecovery: aws.Bool(forGood)}
				_, err := fake.Client().DeleteSecret(t.Context(), del)
				require.NoError(t, err)
				time.Sleep(46 * time.Hour) // short of ErrStale
				for _, s := range fleet {
					accepts(t, issue(t, s), fleet...)
					err := s.Rotate(t.Context())
					require.ErrorContains(t, err, "AWS secret "+awsName)
					require.Equal(t, forGood, errors.Is(err, fleetkey.ErrNotExist))
					require.Equal(t, !forGood, errors.Is(err, fleetkey.ErrDeletionPending))
				}
				if require.Zero(t, fake.Calls("PutSecretValue")); forGood {
					require.Equal(t, 1, fake.Calls("CreateSecret"), "by a running instance never")
					return
				}
				for range 10 {
					_, err := fleetkey.NewSigner(t.Context(), openAWS(t, fake, awsName), cfg)
					require.ErrorIs(t, err, fleetkey.ErrDeletionPending)
					require.ErrorContains(t, err, "restore it by: aws secretsmanager restore-secret --secret-id "+awsName)
				}
				require.Equal(t, 1, fake.Calls("CreateSecret"), "by a starting one neither")
				_, err = fake.Client().RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: aws.String(awsName)})
				require.NoError(t, err)
				time.Sleep(12 * time.Minute)
				refresh(t, fleet...)
				requireOneFleet(t, 2, append(fleet, start(t, openAWS(t, fake, awsName), cfg))...) // and it has rotated
			})
		})
	}
}

// A10, A11: an operator moves AWSCURRENT back to before a key, or puts another
// environment's keys in place. What was signed stays good on every instance, the
// log tells of it, and rotation goes on from there.
func TestSignerOnAWS_A10_A11_ChangedByHand(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, fake *awsfake.Server, from, to fleetkey.Version){
		"A11 rolled back": func(t *testing.T, fake *awsfake.Server, from, to fleetkey.Version) { moveCurrent(t, fake, from, to) },
		"A10 another environment's": func(t *testing.T, fake *awsfake.Server, _, _ fleetkey.Version) {
			operatorPuts(t, fake, string(foreignBundle(t, config())))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake, log := awsfake.New(), new(logBuffer)
				cfg := config()
				cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
				fleet := []*fleetkey.Signer{start(t, openAWS(t, fake, awsName), cfg), start(t, openAWS(t, fake, awsName), cfg)}
				first := fleet[0].Status().Version
				require.NoError(t, fleet[0].Rotate(t.Context()))
				time.Sleep(25 * time.Hour)
				token := issue(t, fleet[1]) // by the second key
				change(t, fake, fleet[1].Status().Version, first)
				refresh(t, fleet...)
				accepts(t, token, fleet...)
				require.Contains(t, log.String(), "keys have vanished from the store")
				require.Contains(t, log.String(), kidOf(t, token))
				require.NotEqual(t, kidOf(t, token), fleet[0].SigningKey().KeyID)
				accepts(t, issue(t, fleet[0]), fleet...)

				require.NoError(t, fleet[1].Rotate(t.Context()), "the version made of the old one exists already")
				refresh(t, fleet...)
				accepts(t, token, fleet...)
				require.Equal(t, jwks(t, fleet[0]), jwks(t, fleet[1]))
			})
		})
	}
}
