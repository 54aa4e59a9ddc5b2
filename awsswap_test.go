package fleetkey_test

import (
	"context"
	"fmt"
	"strings"
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

// This file tests the compare-and-swap of Save on an existing secret (rows A10 to A15 of
// docs/faults.md), in the virtual time of a synctest bubble.

// A world is a test, or the setup of one.
type world func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version)

// inBubble runs a test on a secret that holds bundle "a" as version v.
func inBubble(t *testing.T, name string, test world) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fake := awsfake.New()
			s := openAWS(t, fake, awsName)
			test(t, fake, s, mustSave(t, s, pemBundle("a"), ""))
		})
	})
}

// TestAWSStoreRaces has 32 instances save over one version at once. Exactly one must win, and
// the fleet must store few versions, since AWS allows about a hundred.
func TestAWSStoreRaces(t *testing.T) {
	lag := func(d time.Duration) world {
		return func(_ *testing.T, fake *awsfake.Server, _ *fleetkey.AWSStore, _ fleetkey.Version) {
			time.Sleep(d)
			fake.Lag(d)
		}
	}
	for name, c := range map[string]struct {
		rounds, most int // versions per round
		before       world
	}{
		"A12 all is well": {10, 1, lag(0)},
		"W5 an emulator overwrites a version on a used token": {10, 1, func(_ *testing.T, fake *awsfake.Server, _ *fleetkey.AWSStore, _ fleetkey.Version) {
			fake.Lax()
		}},
		"A11 an operator has moved AWSCURRENT back": {1, 1, func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			_, err := fake.Client().UpdateSecretVersionStage(t.Context(), &secretsmanager.UpdateSecretVersionStageInput{
				SecretId: aws.String(awsName), VersionStage: aws.String("AWSCURRENT"),
				RemoveFromVersionId: aws.String(string(mustSave(t, s, pemBundle("b"), v))), MoveToVersionId: aws.String(string(v)),
			})
			require.NoError(t, err)
		}},
		"A13 a writer has died between its calls": {1, 1, func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			ctx, die := context.WithCancel(t.Context())
			fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Do: die, Hang: true})
			_, err := s.Save(ctx, pemBundle("dead"), v)
			requireError(t, err, context.Canceled)
			requireHolds(t, s, pemBundle("a"), v) // readers are unaffected
			require.Equal(t, 2, fake.Versions(awsName))
		}},
		"A14 reads lag by less than the patience of the losers": {1, 1, lag(2 * time.Second)},
		"A14 reads lag by more, and a spare token is used":      {1, 2, lag(5 * time.Second)},
	} {
		inBubble(t, name, func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			c.before(t, fake, s, v)
			fake.Inject(awsfake.Fault{Delay: 30 * time.Millisecond}) // so that their calls overlap
			for range c.rounds {
				var wg sync.WaitGroup
				won, versions := make(chan func(), 32), fake.Versions(awsName)
				for i := range 32 {
					wg.Go(func() {
						b := pemBundle(fmt.Sprint(v, i))
						w, err := openAWS(t, fake, awsName).Save(t.Context(), b, v)
						if err == nil {
							won <- func() { requireHolds(t, s, b, w); v = w }
						} else {
							assert.ErrorIs(t, err, fleetkey.ErrConflict)
						}
					})
				}
				wg.Wait()
				require.Len(t, won, 1)
				fake.Lag(0)
				(<-won)()
				require.LessOrEqual(t, fake.Versions(awsName)-versions, c.most)
			}
		})
	}
}

// TestAWSStoreA12: others write at the same time.
func TestAWSStoreA12(t *testing.T) {
	inBubble(t, "the loser is told, and may then save over the winner", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		w := mustSave(t, s, pemBundle("b"), v)
		_, err := s.Save(t.Context(), pemBundle("c"), v)
		requireError(t, err, fleetkey.ErrConflict, string(w))
		require.Equal(t, 2, fake.Versions(awsName), "a save over an old version must not create one")
		require.Equal(t, 1, fake.Calls("PutSecretValue"))
		requireHolds(t, s, pemBundle("b"), mustSave(t, s, pemBundle("b"), w)) // saving equal content also makes a new version
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
	const lax = "W5 another writer overwrites the version before UpdateSecretVersionStage"
	for _, name := range []string{"A10 an operator writes before PutSecretValue", "A10 an operator writes before UpdateSecretVersionStage", lax} {
		inBubble(t, name, func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			fake.Inject(awsfake.Fault{Action: name[strings.LastIndex(name, " ")+1:], Times: 1, Do: func() {
				put := &secretsmanager.PutSecretValueInput{SecretId: aws.String(awsName), SecretString: aws.String("other")}
				if name == lax {
					fake.Lax()
					parked, err := fake.Client().GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{
						SecretId: aws.String(awsName), VersionStage: aws.String("FLEETKEY_PENDING")})
					require.NoError(t, err)
					put.VersionStages, put.ClientRequestToken = []string{"FLEETKEY_PENDING"}, parked.VersionId
				}
				_, err := fake.Client().PutSecretValue(t.Context(), put)
				require.NoError(t, err)
			}})
			_, err := s.Save(t.Context(), pemBundle("b"), v)
			requireError(t, err, fleetkey.ErrConflict)
			b, _, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, "other", string(b))
		})
	}
}

// TestAWSStoreA13: AWS makes the change but the reply is lost, once or at every attempt of
// the SDK, or the writer dies midway.
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
						requireError(t, err, fleetkey.ErrConflict) // with its own first call, which succeeded
						return
					}
				}
				require.NoError(t, err, "the retry uses the same token and content")
				requireHolds(t, s, pemBundle("b"), v)
			})
		}
	}
	inBubble(t, "waiting for a dead writer ends with the context", func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
		fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 1, Error: &awsfake.Error{Code: "AccessDeniedException"}})
		_, err := s.Save(t.Context(), pemBundle("dead"), v)
		requireError(t, err, fleetkey.ErrAccessDenied)
		require.Equal(t, 1, fake.Calls("GetSecretValue"), "after a denial there is no result to look for")
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
	for lost, says := range map[bool]string{true: "reading back whether it took effect failed", false: "may be current already, but cannot be read"} {
		inBubble(t, "the outcome cannot be learned: "+says, func(t *testing.T, fake *awsfake.Server, s *fleetkey.AWSStore, v fleetkey.Version) {
			fake.Inject(awsfake.Fault{Action: "UpdateSecretVersionStage", Times: 3, Lost: lost, Do: func() {
				fake.Inject(awsfake.Fault{Action: "GetSecretValue", Times: 9, Status: 503})
			}})
			_, err := s.Save(t.Context(), pemBundle("b"), v)
			requireError(t, err, fleetkey.ErrUnavailable, says, "503")
		})
	}
}

// TestAWSStoreA14: reads lag behind writes.
func TestAWSStoreA14(t *testing.T) {
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

// TestAWSStoreA15 tests the quota of 100 versions, each of which lives for at least a day.
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
		time.Sleep(time.Hour) // all spare tokens of this hour may be used up
		mustSave(t, s, pemBundle("z"), v)
	})
}
