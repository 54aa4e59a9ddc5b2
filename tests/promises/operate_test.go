package promises

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// An op is what happens in one step of a history.
type op string

const (
	start     op = "start"
	stop      op = "stop"
	pass      op = "pass"
	rotate    op = "rotate"
	together  op = "rotate together"
	revoke    op = "revoke"
	revokeAll op = "revoke all"
	fail      op = "store fails"
	move      op = "clock moves"
	suspend   op = "suspend"
	rollBack  op = "roll back"
	swap      op = "swap"
	cut       op = "cut"
	edit      op = "edit"
	restore   op = "import"
	remove    op = "delete"
)

var ops = []op{start, stop, rotate, together, revoke, revokeAll, fail, move, suspend, rollBack, swap, cut, edit, restore, remove}

var (
	durations = []time.Duration{time.Second, 11 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute,
		time.Hour, 3 * time.Hour, 13 * time.Hour, 2 * day}
	offsets = []time.Duration{0, 20 * time.Second, -20 * time.Second, 15 * time.Minute, -15 * time.Minute,
		3 * time.Hour, -3 * time.Hour, 45 * day, -45 * day, -10957 * day}
	configured = [][]int{{}, {0}, {0, 1}, {2}, {2, 3}, {2, 4}, {5}, {0, 1, 2, 3}} // of fleet.formers
)

// do makes one step.
func (f *fleet) do(s step) {
	m := f.machines[s.Who]
	switch s.Op {
	case pass:
		time.Sleep(durations[s.Arg%len(durations)])
	case start:
		m.stop()
		f.start(m, s.Arg)
	case stop:
		m.stop()
	case fail:
		m.fault.Store(int32(s.Arg % faults))
	case suspend:
		m.suspend(durations[3+s.Arg%7])
	case move:
		m.Set(offsets[s.Arg%len(offsets)])
		if m.in != nil {
			m.in.jumped()
		}
	case remove:
		f.cell.Delete()
	case rollBack, swap, cut, edit, restore:
		f.byHand(s)
	default:
		if m.in != nil {
			f.operate(m.in, s)
		}
	}
}

// start starts an instance with the configuration that a number encodes.
func (f *fleet) start(m *machine, arg int) {
	before, cfg, valid, mounted := f.content(), f.policy, true, false
	cfg.Algorithm = "ES256"
	if arg/256%2 == 1 && len(before.Pairs) > 0 {
		cfg.Algorithm = ""
	}
	switch arg % 8 {
	case 5:
		cfg = policies[(f.policyNumber+2)%refused]
		cfg.Algorithm = "ES256"
	case 6:
		cfg, valid = policies[refused], false
		cfg.Algorithm = "ES256"
	case 7:
		cfg.Algorithm = "ES384"
	}
	chosen := arg / 8 % 8
	for _, i := range configured[chosen] {
		cfg.Former = append(cfg.Former, f.formers[i].cfg)
	}
	switch arg / 64 % 4 {
	case 1:
		cfg.Adopt = m.old
	case 2:
		cfg.MustExist = true
	case 3:
		mounted = m != f.machines[0]
	}
	err := m.start(cfg, mounted)
	if err == nil {
		m.in.formers = configured[chosen]
	}
	conflict := chosen == 5
	absent := before.Bad == "absent"
	switch {
	case conflict && err == nil:
		f.breaks("P1", "a configuration that gives two keys one name is accepted")
	case !valid && err == nil:
		f.breaks("P6", "a policy under which no instance could sign is accepted")
	case err != nil && valid && !conflict && m.heals() && (before.Bad == "" || absent && !cfg.MustExist && !mounted):
		f.breaks("start", "%v", err)
	}
}

// operate performs an operator's action on an instance, with a timeout of five minutes.
func (f *fleet) operate(in *instance, s step) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	in.operated.Add(1)
	defer in.operated.Add(-1)
	begin, before, ids := time.Now(), f.content(), []string(nil)
	works := in.machine.heals() && before.Bad == "" && !in.mounted
	var err error
	switch s.Op {
	case rotate:
		err = in.signer.Rotate(ctx)
	case together:
		f.together(ctx)
	case revokeAll:
		for _, p := range before.Pairs {
			ids = append(ids, p.ID)
		}
		err = in.signer.RevokeAll(ctx)
	case revoke:
		name, id := in.pickName(s.Arg)
		works, ids = works && id != "", []string{id}
		err = in.signer.Revoke(ctx, name)
	}
	if err != nil {
		in.setDoubt()
	}
	after := f.content()
	switch {
	case in.mounted && s.Op != together && !errors.Is(err, fleetkey.ErrReadOnly) && !errors.Is(err, fleetkey.ErrUnknownKey):
		f.breaks("P6", "%s on a read-only store: %v", s.Op, err)
		return
	case !works:
		return
	case err != nil:
		f.breaks("P5", "%s gave up: %v", s.Op, err)
		return
	case s.Op != together && in.machine.fault.Load() == healthy && time.Since(begin) > 30*time.Second:
		f.breaks("P5", "%s took %v", s.Op, time.Since(begin))
	}
	for _, id := range ids {
		if !after.Revoked[id] {
			f.breaks("P2", "%s returned nil, but the store does not hold the revocation of %s", s.Op, id)
		}
	}
	could, _ := signing(before, in.machine.Now())
	if can, _ := signing(after, in.machine.Now()); can == nil && (could != nil || s.Op == rotate) {
		f.breaks("P4", "nothing in the store can sign after %s", s.Op)
	}
}

// together rotates on all instances at once. All must succeed.
func (f *fleet) together(ctx context.Context) {
	var all sync.WaitGroup
	works := f.content().Bad == ""
	for _, in := range f.running() {
		works := works && in.machine.heals() && !in.mounted
		all.Go(func() {
			in.operated.Add(1)
			defer in.operated.Add(-1)
			if err := in.signer.Rotate(ctx); err != nil {
				in.setDoubt()
				if works {
					f.breaks("P5", "Rotate gave up: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// pickName returns a kid to revoke, and the thumbprint that it means on the instance, or ""
// if the instance cannot know it.
func (in *instance) pickName(arg int) (name, id string) {
	f := in.machine.fleet
	var names []string
	for _, p := range f.keys {
		names = append(names, p.ID)
	}
	for _, other := range f.formers {
		names = append(names, other.names...)
	}
	name = names[arg/4%len(names)]
	switch k, _ := signing(f.content(), time.Now()); {
	case arg%4 < 2 && k != nil:
		return k.ID, k.ID
	case arg%4 == 2 && len(in.formers) > 0:
		known := f.formers[in.formers[arg/4%len(in.formers)]].names
		name = known[arg/16%len(known)]
	}
	for _, i := range in.formers {
		if slices.Contains(f.formers[i].names, name) {
			return name, testkit.Thumbprint(f.formers[i].private.Public())
		}
	}
	if f.key(name) != nil {
		return name, name
	}
	return name, ""
}

// byHand changes the store directly, without an instance.
func (f *fleet) byHand(s step) {
	now, arg := f.content(), s.Arg
	text := now.Text
	switch s.Op {
	case rollBack:
		if len(f.versions) == 0 {
			return
		}
		v := f.versions[arg/2%len(f.versions)]
		if arg%2 == 0 {
			f.cell.RollBack(v)
			return
		}
		text = f.contents[v].Text
	case swap:
		p := [][2]time.Duration{{-day, 3600 * day}, {-day, 3600 * day}, {-60 * day, -day}, {700 * day, 3600 * day}}[arg%4]
		text = newPair([]string{"ES256", "ES384"}[arg%2], time.Now().Add(p[0]), time.Now().Add(p[1])).Text
	case cut:
		at := arg / 4 % (len(now.Blocks) + 1)
		switch arg % 4 {
		case 0:
			text = text[:len(text)*at/(len(now.Blocks)+1)]
		case 1:
			text = strings.Join(now.Blocks[at:], "")
		case 2:
			text = strings.Join(now.Blocks[:at], "")
		case 3: // only what is public
			text = strings.Join(slices.DeleteFunc(now.Blocks, func(b string) bool { return strings.Contains(b, "E KEY") || strings.Contains(b, "CERT") }), "")
		}
	case restore:
		p := f.keys[arg%len(f.keys)]
		if now.Find(p.ID) == nil && !strings.Contains(text, p.Text) {
			text = p.Text + text
		}
	case edit:
		signing, _ := signing(now, time.Now())
		until := time.Now().Add(durations[arg/4%len(durations)])
		switch {
		case arg%4 == 0:
			text += revokedBlock(f.keys[arg/4%len(f.keys)].ID)
		case arg%4 == 1:
			text += revokedBlock(testkit.Thumbprint(f.formers[arg/4%len(f.formers)].private.Public()))
		case signing == nil:
		case arg%4 == 2:
			text += retiredBlock(*signing, until)
		case arg%4 == 3:
			text = strings.Replace(text, signing.Text, retiredBlock(*signing, until), 1)
		}
	}
	f.put(text)
}
