package fleetkey_test

import (
	"context"
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

// The compare-and-swap of Save on an existing secret (rows A10 to A15 of
// docs/faults.md), in the virtual time of a synctest bubble.

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

// requireOneWinner lets n instances save over v at once, and returns what won.
func requireOneWinner(t *testing.T, fake *awsfake.Server, v fleetkey.Version, n int, seed string) fleetkey.Version {
	t.Helper()
	var wg sync.WaitGroup
	won := make(chan fleetkey.Version, n)
	bundles := make(chan []byte, n)
	for i := range n {
		wg.Go(func() {
			b := pemBundle(fmt.Sprint(seed, "instance", i))
			w, err := openAWS(t, fake, awsName).Save(t.Context(), b, v)
			if err == nil {
				won <- w
				bundles <- b
			} else {
				assert.ErrorIs(t, err, fleetkey.ErrConflict)
			}
		})
	}
	wg.Wait()
	require.Len(t, won, 1)
	fake.Lag(0)
	w := <-won
	requireHolds(t, openAWS(t, fake, awsName), <-bundles, w)
	return w
}

func moveCurrent(t testing.TB, fake *awsfake.Server, from, to fleetkey.Version) {
	t.Helper()
	_, err := fake.Client().UpdateSecretVersionStage(t.Context(), &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: aws.String(awsName), VersionStage: aws.String("AWSCURRENT"),
		RemoveFromVersionId: aws.String(string(from)), MoveToVersionId: aws.String(string(to)),
	})
	require.NoError(t, err)
}

// delayed makes the calls of all instances overlap.
var delayed = awsfake.Fault{Delay: 30 * time.Millisecond}

// TestAWSStoreA12 : 32 instances rotate at once, for several rounds.
func TestAWSStoreA12(t *testing.T) {
	inBubble(t, "one winner", func(t *testing.T, fake *awsfake.Server, _ *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(delayed)
		for round := range 10 {
			v = requireOneWinner(t, fake, v, 32, fmt.Sprint("round", round))
			require.Equal(t, round+2, fake.Versions(awsName), "one version a round")
		}
	})
	inBubble(t, "the loser is told, and may then save over the winner", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("b"), v)
		_, err := s.Save(t.Context(), pemBundle("c"), v)
		requireError(t, err, fleetkey.ErrConflict, string(w))
		require.Equal(t, 2, fake.Versions(awsName), "a save over an old version makes none")
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), w)) // equal content is a change too
	})
	inBubble(t, "A1 a throttled writer looks before it tries again", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		throttle := awsfake.Throttle(1)
		throttle.Action = "PutSecretValue"
		throttle.Do = func() { mustSave(t, openAWS(t, fake, awsName), pemBundle("b"), v) }
		fake.Inject(throttle)
		_, err := s.Save(t.Context(), pemBundle("c"), v)
		requireError(t, err, fleetkey.ErrConflict)
		require.Equal(t, 2, fake.Calls("PutSecretValue"))
	})
	for _, action := range []string{"PutSecretValue", "UpdateSecretVersionStage"} {
		inBubble(t, "A10 an operator writes before "+action, func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			fake.Inject(awsfake.Fault{Action: action, Times: 1, Do: func() {
				_, err := fake.Client().PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
					SecretId: aws.String(awsName), SecretString: aws.String("operator"),
				})
				require.NoError(t, err)
			}})
			_, err := s.Save(t.Context(), pemBundle("b"), v)
			requireError(t, err, fleetkey.ErrConflict)
			b, _, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, "operator", string(b))
		})
	}
}

// TestAWSStorePromotion_W5 : an emulator that overwrites a version on a used token. The bytes
// that are current decide which of 32 savers has won.
func TestAWSStorePromotion_W5(t *testing.T) {
	inBubble(t, "32 save at once", func(t *testing.T, fake *awsfake.Server, _ *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Lax()
		fake.Inject(delayed)
		for round := range 10 {
			v = requireOneWinner(t, fake, v, 32, fmt.Sprint("round", round))
		}
	})
	inBubble(t, "another writer's bytes", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Lax()
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Do: func() {
			_, err := fake.Client().PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
				SecretId: aws.String(awsName), SecretString: aws.String("other"), VersionStages: []string{"FLEETKEY_PENDING"},
				ClientRequestToken: aws.String(pendingVersion(t, fake)),
			})
			require.NoError(t, err)
		}})
		_, err := s.Save(t.Context(), pemBundle("b"), v)
		requireError(t, err, fleetkey.ErrConflict)
	})
}

// pendingVersion returns the version that a Save has parked.
func pendingVersion(t *testing.T, fake *awsfake.Server) string {
	out, err := fake.Client().GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{
		SecretId: aws.String(awsName), VersionStage: aws.String("FLEETKEY_PENDING"),
	})
	require.NoError(t, err)
	return *out.VersionId
}

// TestAWSStoreA11 : an operator moves AWSCURRENT back to the version before. The version
// derived from it exists already, but saving works.
func TestAWSStoreA11(t *testing.T) {
	inBubble(t, "32 save after a rollback", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		moveCurrent(t, fake, mustSave(t, s, pemBundle("b"), v), v)
		fake.Inject(delayed)
		requireOneWinner(t, fake, v, 32, "")
		require.LessOrEqual(t, fake.Versions(awsName), 2+1, "one spare token for all")
	})
}

// TestAWSStoreA13 : the work is done but the reply is lost, once or at every attempt of
// the SDK; or the writer dies between its two calls.
func TestAWSStoreA13(t *testing.T) {
	for _, action := range []string{"CreateSecret", "PutSecretValue", "UpdateSecretVersionStage"} {
		for _, times := range []int{1, 3} {
			inBubble(t, fmt.Sprintf("%s loses %d replies", action, times), func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, prev fleetkey.Version) {
				if action == "CreateSecret" {
					s, prev = openAWS(t, fake, freshName()), ""
				}
				fake.Inject(awsfake.Fault{Action: action, Times: times, Lost: true})
				v, err := s.Save(t.Context(), pemBundle("b"), prev)
				if times == 3 && action != "UpdateSecretVersionStage" {
					requireError(t, err, fleetkey.ErrUnavailable, "cannot be reached")
					v, err = s.Save(t.Context(), pemBundle("b"), prev)
					if action == "CreateSecret" {
						requireError(t, err, fleetkey.ErrConflict) // with itself; Load tells
						return
					}
				}
				require.NoError(t, err, "the same token and content")
				requireHolds(t, s, pemBundle("b"), v)
			})
		}
	}
	inBubble(t, "a writer died between its calls", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		ctx, die := context.WithCancel(t.Context())
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Do: die, Hang: true})
		_, err := openAWS(t, fake, awsName).Save(ctx, pemBundle("dead"), v)
		requireError(t, err, context.Canceled)
		requireHolds(t, s, pemBundle("a"), v) // readers are unaffected
		require.Equal(t, 2, fake.Versions(awsName))

		fake.Inject(delayed)
		requireOneWinner(t, fake, v, 32, "")
		require.LessOrEqual(t, fake.Versions(awsName), 2+1, "one spare token for all")
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
		requireError(t, err, fleetkey.ErrUnavailable, "cannot be reached", "reading back whether it took effect failed", "503")
	})
}

// TestAWSStoreA14 : reads lag behind writes.
func TestAWSStoreA14(t *testing.T) {
	for lag, versions := range map[time.Duration]int{
		2 * time.Second: 2,     // less than the patience of the losers
		5 * time.Second: 2 + 1, // more: they use a spare token
	} {
		inBubble(t, fmt.Sprintf("32 rotate, %s behind", lag), func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			fake.Inject(delayed)
			time.Sleep(lag)
			fake.Lag(lag)
			requireOneWinner(t, fake, v, 32, "")
			require.LessOrEqual(t, fake.Versions(awsName), versions)
		})
	}
	inBubble(t, "a rotator that sees only the past changes nothing", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		time.Sleep(time.Minute)
		w := mustSave(t, s, pemBundle("b"), v)
		fake.Lag(time.Minute)
		requireHolds(t, s, pemBundle("a"), v)
		_, err := s.Save(t.Context(), pemBundle("c"), v)
		require.Error(t, err)
		require.NotErrorIs(t, err, fleetkey.ErrNotExist)
		fake.Lag(0)
		requireHolds(t, s, pemBundle("b"), w)
		require.LessOrEqual(t, fake.Versions(awsName), 2+1)
	})
}

// TestAWSStoreA15 : the quota of a hundred versions, each of which lives for at least a
// day.
func TestAWSStoreA15(t *testing.T) {
	inBubble(t, "quota", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		for fake.Versions(awsName) < 100 {
			v = mustSave(t, s, pemBundle(fmt.Sprint(fake.Versions(awsName))), v)
		}
		_, err := s.Save(t.Context(), pemBundle("z"), v)
		requireError(t, err, nil, "quota", "LimitExceededException")
		_, _, err = s.Load(t.Context())
		require.NoError(t, err)
		time.Sleep(25 * time.Hour)
		mustSave(t, s, pemBundle("z"), v)
	})
	inBubble(t, "a policy that allows puts but not promotions", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
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
}
