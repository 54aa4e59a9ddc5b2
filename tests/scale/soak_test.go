package scale

import (
	"crypto/rand"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A sample is what a fleet at rest uses, and how often it has loaded and issued so far.
type sample struct{ bytes, objects, goroutines, loads, tokens int }

// L8: for days, the network fails at random, strangers make up tokens, and keys rotate as
// planned. Every few hours the fleet comes to rest, and its memory and goroutines are counted. If
// each load or token leaked one object, the last quarter of the samples would hold more than the
// first by the number of loads or tokens in between. Half of that is allowed.
func TestSoak_L8_NothingGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, time.Minute)
		defer f.close()
		f.cfg.Rotation.Announce = time.Hour // longer than an outage
		f.start()
		for i := range 99 { // a secret that has had a hundred versions is as large as it gets
			_, err := f.aws.Client().PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{
				SecretId: aws.String(secretName), SecretString: aws.String(strings.Repeat(fmt.Sprint(i%10), 2000)), VersionStages: []string{"OTHER"},
			})
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		time.Sleep(testkit.Day + time.Hour) // younger versions are not removed
		var samples []sample
		for range testkit.Long(3*4, 120*4) {
			f.weather(6 * time.Hour)
			samples = append(samples, f.rest())
		}
		n := len(samples) / 4
		early, late := samples[:n], samples[len(samples)-n:]
		grown := func(of func(sample) int) int {
			least := func(samples []sample) int {
				return of(slices.MinFunc(samples, func(a, b sample) int { return of(a) - of(b) }))
			}
			return least(late) - least(early)
		}
		objects, bytes := grown(func(x sample) int { return x.objects }), grown(func(x sample) int { return x.bytes })
		loads, tokens := late[n/2].loads-early[n/2].loads, late[n/2].tokens-early[n/2].tokens
		t.Logf("%d loads and %d tokens have grown the heap by %d objects, %d bytes", loads, tokens, objects, bytes)
		require.Less(t, objects, min(loads, tokens)/2, "objects on the heap") // random noise is a few hundred
		require.Less(t, bytes, max(16*loads, 128<<10), "bytes on the heap: the smallest object for each load")
		require.Zero(t, grown(func(x sample) int { return x.goroutines }), "goroutines, without calls under way")
		require.Empty(t, f.refused)
		for _, kind := range awsfake.Kinds() {
			require.NotZero(t, f.aws.Calls(kind), kind)
		}
		require.WithinDuration(t, time.Now(), f.pick().Status().SigningSince, 2*f.cfg.Rotation.Every, "it rotates")
		require.LessOrEqual(t, f.aws.Versions(secretName), 100)
	})
}

// weather is a few hours on a bad network, while a stranger makes up tokens. The network
// changes two or three times an hour: usually a few calls fail, sometimes all of them.
func (f *fleet) weather(d time.Duration) {
	stranger := testkit.NewForger("ES256")
	failing := []float64{0, 0.1, 0.2, 1, 0.1, 0.4} // one outage at a time
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		f.aws.Random(uint64(time.Now().Unix()), failing[i%len(failing)], 3*time.Second, awsfake.Kinds()...)
		time.Sleep(time.Duration(10+i%4*10) * time.Minute)
		for range 30 {
			stranger.KID = rand.Text()
			testkit.Refuses(f.t, fleetkey.ErrUnknownKey, testkit.AccessToken(stranger), f.pick())
		}
	}
}

// rest brings a fleet to rest, with a good network and full caches, and counts.
func (f *fleet) rest() (now sample) {
	f.aws.Heal()
	time.Sleep(7 * time.Minute)
	for range 4 * f.cfg.CachedTokens {
		f.exchange(len(f.instances))
	}
	f.measure() // resets the counters
	synctest.Wait()
	stacks := make([]byte, 1<<20) // those in the bubble are the test's
	stacks = stacks[:runtime.Stack(stacks, true)]
	now.goroutines = strings.Count(string(stacks), "synctest bubble")
	for range 3 { // the first moves what is in pools, the second frees it
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	now.bytes, now.objects = int(m.HeapAlloc), int(m.HeapObjects)
	for _, i := range f.instances {
		status := i.signer.Load().Status()
		require.NoError(f.t, status.LoadErr)
		now.loads += int(status.Counters.Loads + status.Counters.FailedLoads)
		now.tokens += int(status.Counters.Issued)
	}
	return now
}
