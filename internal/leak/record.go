package leak

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"strings"
)

// HideRecord adds the keys that processes have recorded (see [NewRecord]), and
// returns how many there are.
func (d *Detector) HideRecord(r io.Reader) (keys int, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	seen := map[string]bool{}
	for lines.Scan() {
		if seen[lines.Text()] {
			continue
		}
		seen[lines.Text()] = true
		if err := d.hideLine(lines.Text()); err != nil {
			return 0, err
		}
	}
	return len(seen), lines.Err()
}

func (d *Detector) hideLine(line string) error {
	kind, text, _ := strings.Cut(line, " ")
	var parts [][]byte
	for _, field := range strings.Split(text, " ") {
		part, err := hex.DecodeString(field)
		if err != nil {
			return fmt.Errorf("the record of keys is damaged: %w", err)
		}
		parts = append(parts, part)
	}
	switch {
	case kind == "EC" && len(parts) == 1:
		d.HideBytes("d of an EC key", parts[0])
	case kind == "Ed25519" && len(parts) == 1:
		d.HideBytes("the seed of an Ed25519 key", parts[0])
	case kind == "RSA" && len(parts) == 3:
		number := func(i int) *big.Int { return new(big.Int).SetBytes(parts[i]) }
		d.HideRSA(number(0), number(1), number(2))
	default:
		return fmt.Errorf("the record of keys is damaged: a line for %q with %d parts", kind, len(parts))
	}
	return nil
}
