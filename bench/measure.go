package main

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// A series holds how long one task took in each round.
type series struct {
	Operation, Algorithm, Contender string
	Allocs                          uint64
	NS                              []float64 // of processor time per run of the task
}

// compare measures all contenders with one algorithm. Each round measures every task once, in
// a new random order, so that other work on the machine affects all of them equally.
func compare(p plan, algorithm string) []series {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that the system accounts for processor time exactly
	f := newFixture(ctx, algorithm)
	tasks := bareTasks(f)
	for _, c := range contenders {
		tasks = append(tasks, c.open(ctx, f).tasks(ctx, c.name, f)...)
	}
	all := make([]series, len(tasks))
	for range p.rounds {
		for _, i := range rand.Perm(len(tasks)) {
			ns, allocs := tasks[i].measure(p.slice)
			all[i] = series{tasks[i].operation, algorithm, tasks[i].contender, allocs, append(all[i].NS, ns)}
		}
	}
	return all
}

// measure repeats a task until that takes at least half a slice of processor time.
func (t task) measure(slice time.Duration) (ns float64, allocs uint64) {
	var before, after runtime.MemStats
	runtime.GC()
	for n := 1; ; n *= 2 {
		runtime.ReadMemStats(&before)
		began := processorTime()
		for i := range n {
			t.run(i)
		}
		if took := processorTime() - began; took >= slice/2 {
			runtime.ReadMemStats(&after)
			return math.Round(float64(took)/float64(n)*10) / 10, (after.Mallocs - before.Mallocs) / uint64(n)
		}
	}
}

// processorTime returns the processor time of this process, including its garbage collector.
// It advances only while the process runs, so other work on the machine matters less.
func processorTime() time.Duration {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A fill records how the heap grows while a Signer with the default cache verifies different
// tokens of one size.
type fill struct {
	TokenBytes int
	Verified   []float64 // tokens
	HeapMiB    []float64
}

func measureMemory(p plan) (fills []fill) {
	ctx := context.Background()
	for _, scopes := range []int{0, 40, 120} {
		signer := must(fleetkey.NewSigner(ctx, fleetkeytest.NewStore(), config("EdDSA")))
		c := claims
		c.Scope += strings.Repeat(" orders:read:001", scopes)
		f := fill{TokenBytes: len(must(signer.Issue(ctx, c)))}
		before := heapMiB()
		for i := range p.tokens {
			must(signer.Verify(ctx, must(signer.Issue(ctx, c))))
			if (i+1)%(p.tokens/20) == 0 {
				f.Verified, f.HeapMiB = append(f.Verified, float64(i+1)), append(f.HeapMiB, heapMiB()-before)
			}
		}
		_ = signer.Close() // keeps the cache alive until here
		fills = append(fills, f)
	}
	return fills
}

func heapMiB() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// A start records how long it takes to open a secret in a simulated Secrets Manager and issue
// a token, each time with a different secret.
type start struct {
	Algorithm    string
	First, Later []float64 // milliseconds; the first makes the key
}

func measureStarts(p plan) (starts []start) {
	ctx, client := context.Background(), awsfake.New().Client()
	for _, algorithm := range algorithms {
		var took [2][]float64
		for i := range 2 * p.starts {
			began := time.Now()
			store := must(fleetkey.NewAWSStore(ctx, algorithm+strconv.Itoa(i/2), func(o *fleetkey.AWSOptions) { o.Client = client }))
			signer := must(fleetkey.NewSigner(ctx, store, config(algorithm)))
			must(signer.Issue(ctx, claims))
			took[i%2] = append(took[i%2], float64(time.Since(began).Microseconds())/1000)
			_ = signer.Close()
		}
		starts = append(starts, start{algorithm, took[0], took[1]})
	}
	return starts
}
