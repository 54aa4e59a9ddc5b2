package fleetkey_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// The compare-and-swap of Save on an existing secret (fault matrix A11 to A15),
// in the virtual time of a synctest bubble.

// inBubble runs a test on a secret that holds bundle "a" as version v.
func inBubble(t *testing.T, name string, test func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName)
			test(t, fake, s, mustSave(t, s, pemBundle("a"), ""))
		})
	})
}

// TestAWSStoreA12 : 32 instances rotate at once, for several rounds.
func TestAWSStoreA12(t *testing.T) {
	inBubble(t, "one winner", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Fault{Delay: 30 * time.Millisecond}) // so that the calls of all overlap
		for round := range 10 {
			var mu sync.Mutex
			winners := map[fleetkey.Version][]byte{}
			var wg sync.WaitGroup
			for i := range 32 {
				wg.Go(func() {
					b := pemBundle(fmt.Sprintf("round%dinstance%d", round, i))
					w, err := openAWS(t, fake, awsName).Save(t.Context(), b, v)
					if err != nil {
						assert.ErrorIs(t, err, fleetkey.ErrConflict)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					winners[w] = b
				})
			}
			wg.Wait()
			require.Len(t, winners, 1, "round %d", round)
			for w, b := range winners {
				requireHolds(t, s, b, w)
				v = w
			}
			require.Equal(t, round+2, fake.Versions(awsName), "one version a round")
		}
	})
	inBubble(t, "the loser is told, and may then save over the winner", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("b"), v)
		_, err := openAWS(t, fake, awsName).Save(t.Context(), pemBundle("c"), v)
		requireError(t, err, fleetkey.ErrConflict, string(w))
		require.Equal(t, 2, fake.Versions(awsName))
		requireHolds(t, s, pemBundle("c"), mustSave(t, s, pemBundle("c"), w))
	})
	inBubble(t, "an operator writes between the two calls", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Do: func() { operatorPuts(t, fake, "operator") }})
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, fleetkey.ErrConflict)
		b, _, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, "operator", string(b))
	})
	inBubble(t, "an operator writes before the first call", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Fault{Action: "PutSecretValue", Times: 1, Do: func() { operatorPuts(t, fake, "operator") }})
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, fleetkey.ErrConflict)
		b, _, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, "operator", string(b))
	})
	inBubble(t, "equal content", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("a"), v) // as what is there
		require.NotEqual(t, v, w)
		requireHolds(t, s, pemBundle("a"), w)
		_, err := s.Save(t.Context(), pemBundle("a"), v)
		requireError(t, err, fleetkey.ErrConflict)
		requireHolds(t, s, pemBundle("a"), mustSave(t, s, pemBundle("a"), w))
	})
	inBubble(t, "a made-up version", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		_, err := s.Save(t.Context(), pemBundle("b"), "made-up")
		requireError(t, err, fleetkey.ErrConflict)
		requireHolds(t, s, pemBundle("a"), v)
		require.Equal(t, 1, fake.Versions(awsName))
	})
}

// TestAWSStoreA11 : an operator moves AWSCURRENT back to the version before.
// The version derived from it exists already; saving works all the same.
func TestAWSStoreA11(t *testing.T) {
	inBubble(t, "save after a rollback", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("b"), v)
		moveCurrent(t, fake, w, v)
		requireHolds(t, s, pemBundle("a"), v)

		start := time.Now()
		x := mustSave(t, s, pemBundle("c"), v)
		requireHolds(t, s, pemBundle("c"), x)
		require.NotContains(t, []fleetkey.Version{v, w}, x)
		require.Less(t, time.Since(start), 12*time.Second)
	})
	inBubble(t, "the same save after a rollback", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("b"), v)
		moveCurrent(t, fake, w, v)
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
		require.Equal(t, 2, fake.Versions(awsName))
	})
	inBubble(t, "32 save after a rollback", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		moveCurrent(t, fake, mustSave(t, s, pemBundle("b"), v), v)
		fake.Inject(awsfake.Fault{Delay: 30 * time.Millisecond})
		requireOneWinner(t, fake, v)
		require.LessOrEqual(t, fake.Versions(awsName), 2+3, "three spare tokens an hour")
	})
}

// requireOneWinner lets 32 instances save over v.
func requireOneWinner(t *testing.T, fake *awsfake.Server, v fleetkey.Version) {
	t.Helper()
	var wg sync.WaitGroup
	won := make(chan fleetkey.Version, 32)
	for i := range 32 {
		wg.Go(func() {
			w, err := openAWS(t, fake, awsName).Save(t.Context(), pemBundle(fmt.Sprint("instance", i)), v)
			if err == nil {
				won <- w
			} else {
				assert.ErrorIs(t, err, fleetkey.ErrConflict)
			}
		})
	}
	wg.Wait()
	require.Len(t, won, 1)
	_, w, err := openAWS(t, fake, awsName).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, <-won, w)
}

func moveCurrent(t testing.TB, fake *awsfake.Server, from, to fleetkey.Version) {
	t.Helper()
	_, err := fake.Client().UpdateSecretVersionStage(t.Context(), &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: aws.String(awsName), VersionStage: aws.String("AWSCURRENT"),
		RemoveFromVersionId: aws.String(string(from)), MoveToVersionId: aws.String(string(to)),
	})
	require.NoError(t, err)
}

// TestAWSStoreA13 : the work is done but the reply lost, once or at every
// attempt of the SDK; or the writer dies between its two calls.
func TestAWSStoreA13(t *testing.T) {
	for _, action := range []string{"CreateSecret", "PutSecretValue", "UpdateSecretVersionStage"} {
		for _, times := range []int{1, 2, 3} {
			t.Run(fmt.Sprintf("%s loses %d replies", action, times), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fake := awsfake.New()
					s := openAWS(t, fake, awsName)
					var prev fleetkey.Version
					if action != "CreateSecret" {
						prev = mustSave(t, s, pemBundle("a"), "")
					}
					fake.Inject(awsfake.Fault{Action: action, Times: times, Lost: true})
					v, err := s.Save(t.Context(), pemBundle("b"), prev)
					if times == 3 && action != "UpdateSecretVersionStage" {
						requireError(t, err, fleetkey.ErrUnavailable, "cannot be reached")
						_, err = s.Save(t.Context(), pemBundle("b"), prev)
						if action == "CreateSecret" {
							requireError(t, err, fleetkey.ErrConflict) // with itself; Load tells
							return
						}
						require.NoError(t, err, "the same token and content")
						return
					}
					require.NoError(t, err)
					requireHolds(t, s, pemBundle("b"), v)
				})
			})
		}
	}
	inBubble(t, "a success without content is looked into", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Status: 200})
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, nil, "not one of Secrets Manager")
		requireHolds(t, s, pemBundle("a"), v)
		fake.Inject(awsfake.Fault{Action: "PutSecretValue", Status: 200})
		_, err = s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, nil, "not one of Secrets Manager")
	})
	inBubble(t, "a writer died between its calls", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		ctx, die := context.WithCancel(t.Context())
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Do: die, Hang: true})
		_, err := openAWS(t, fake, awsName).Save(ctx, pemBundle("dead"), v)
		requireError(t, err, context.Canceled)
		requireHolds(t, s, pemBundle("a"), v) // readers are unaffected
		require.Equal(t, 2, fake.Versions(awsName))

		fake.Inject(awsfake.Fault{Delay: 30 * time.Millisecond})
		requireOneWinner(t, fake, v)
		require.LessOrEqual(t, fake.Versions(awsName), 2+3, "three spare tokens an hour")
	})
	inBubble(t, "waiting for a dead writer ends with the context", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Error: &awsfake.Error{Code: "AccessDeniedException"}})
		_, err := s.Save(t.Context(), pemBundle("dead"), v)
		requireError(t, err, fleetkey.ErrAccessDenied)
		require.Equal(t, 1, fake.Calls("GetSecretValue"), "a denial is not looked into")
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second+time.Millisecond)
		defer cancel()
		_, err = s.Save(ctx, pemBundle("b"), v)
		requireError(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second+time.Millisecond, time.Since(start))
	})
	inBubble(t, "the label is off before it is on", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		off := awsfake.Fault{Action: "GetSecretValue", Times: 2, Error: &awsfake.Error{Code: "ResourceNotFoundException"}}
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Lost: true, Do: func() { fake.Inject(off) }})
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), v))
	})
	inBubble(t, "the outcome cannot be learned", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 3, Lost: true, Do: func() {
			fake.Inject(awsfake.Fault{Action: "GetSecretValue", Times: 9, Status: 503})
		}})
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, fleetkey.ErrUnavailable, "cannot be reached", "to learn whether it took effect", "503")
	})
}

// TestAWSStoreA14 : reads lag behind writes.
func TestAWSStoreA14(t *testing.T) {
	t.Run("after the first save", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName)
			fake.Lag(5 * time.Second)
			v := mustSave(t, s, pemBundle("a"), "") // needs no read
			_, _, err := s.Load(t.Context())
			requireError(t, err, fleetkey.ErrNotExist)
			_, err = s.Save(t.Context(), pemBundle("b"), "")
			requireError(t, err, fleetkey.ErrConflict)
			time.Sleep(6 * time.Second)
			requireHolds(t, s, pemBundle("a"), v)
		})
	})
	for lag, versions := range map[time.Duration]int{
		2 * time.Second: 2,     // less than the patience of the losers
		5 * time.Second: 2 + 3, // more: they use the three spare tokens of an hour
	} {
		inBubble(t, fmt.Sprintf("32 rotate, %s behind", lag), func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			fake.Inject(awsfake.Fault{Delay: 30 * time.Millisecond})
			time.Sleep(lag)
			fake.Lag(lag)
			var wg sync.WaitGroup
			won := make(chan fleetkey.Version, 32)
			for i := range 32 {
				wg.Go(func() {
					if w, err := openAWS(t, fake, awsName).Save(t.Context(), pemBundle(fmt.Sprint("instance", i)), v); err == nil {
						won <- w
					} else {
						assert.ErrorIs(t, err, fleetkey.ErrConflict)
					}
				})
			}
			wg.Wait()
			require.Len(t, won, 1)
			require.LessOrEqual(t, fake.Versions(awsName), versions)
			fake.Lag(0)
			_, w, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, <-won, w)
		})
	}
	inBubble(t, "a rotator that sees only the past changes nothing", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("b"), v)
		// A write behind which all reads stay; the one before it put v in place.
		fake.Stale(0)
		fake.Lag(time.Hour)
		_, err := s.Save(t.Context(), pemBundle("c"), v)
		require.Error(t, err)
		fake.Lag(0)
		requireHolds(t, s, pemBundle("b"), w)
	})
	inBubble(t, "the next reads show the version before", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("b"), v)
		moveless := fake.Versions(awsName)
		fake.Stale(1000)
		_, err := s.Save(t.Context(), pemBundle("c"), v)
		require.Error(t, err)
		require.False(t, errors.Is(err, fleetkey.ErrNotExist))
		fake.Stale(0)
		requireHolds(t, s, pemBundle("b"), w)
		require.LessOrEqual(t, fake.Versions(awsName), moveless+1)
	})
}

// TestAWSStoreA15 : the quota of a hundred versions, each of which lives a day
// at least.
func TestAWSStoreA15(t *testing.T) {
	inBubble(t, "quota", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		var err error
		for err == nil && fake.Versions(awsName) <= 100 {
			var w fleetkey.Version
			if w, err = s.Save(t.Context(), pemBundle(fmt.Sprint(fake.Versions(awsName))), v); err == nil {
				v = w
			}
		}
		requireError(t, err, nil, "quota", "LimitExceededException")
		require.Equal(t, 100, fake.Versions(awsName))
		_, _, err = s.Load(t.Context())
		require.NoError(t, err)

		time.Sleep(25 * time.Hour)
		mustSave(t, s, pemBundle("z"), v)
	})
	inBubble(t, "a policy that allows to put, but not to promote", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Enforce(&awsfake.Policy{Resources: []string{"*"}, Actions: []string{"secretsmanager:*etSecretValue", "secretsmanager:PutSecretValue"}})
		for attempt := range 26 * 2 { // more than a day, every half an hour
			for i := range 3 {
				_, err := s.Save(t.Context(), pemBundle(fmt.Sprint(attempt, "/", i)), v)
				require.ErrorContains(t, err, "secretsmanager:UpdateSecretVersionStage")
				require.NotErrorIs(t, err, fleetkey.ErrConflict)
			}
			time.Sleep(30 * time.Minute)
		}
		fake.Enforce(nil)
		time.Sleep(time.Hour) // this hour's spare tokens may all be used
		mustSave(t, s, pemBundle("z"), v)
	})
	inBubble(t, "a save over an old version makes none", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		mustSave(t, s, pemBundle("b"), v)
		for range 200 {
			_, err := s.Save(t.Context(), pemBundle("c"), v)
			requireError(t, err, fleetkey.ErrConflict)
		}
		require.Equal(t, 2, fake.Versions(awsName))
	})
	inBubble(t, "four months of daily rotations by 2 instances", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		for day := range 120 {
			var wg sync.WaitGroup
			next := make(chan fleetkey.Version, 2)
			for i := range 2 {
				wg.Go(func() {
					if w, err := s.Save(t.Context(), pemBundle(fmt.Sprint(day, "/", i)), v); err == nil {
						next <- w
					}
				})
			}
			wg.Wait()
			require.Len(t, next, 1)
			v = <-next
			time.Sleep(24 * time.Hour)
		}
	})
}
