package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file draws the lives of keys over time:
//
//	                  now
//	x7Qz…             :   ......####################>
//	Fk1c…  <##########:#########-----
//
// # signs, . is announced, - is trusted but no longer signs. A revoked key has no row.

// timeline returns the drawing. Times far from now are cut off, since a certificate lasts
// ten years and a rotation takes a day.
func timeline(s fleetkey.Status) string {
	const width = 72 // columns
	start, end := span(s)
	step := end.Sub(start) / width
	var out strings.Builder
	fmt.Fprintf(&out, "%13s%*s|\n", "now ", int(s.Time.Sub(start)/step), "")
	for _, k := range s.Keys {
		if k.Role == fleetkey.RoleRevoked {
			continue
		}
		announced, replaced := k.NotBefore, successor(s, k)
		switch {
		case k.NotBefore.IsZero(): // retired by name
			replaced = start
		case k.NotBefore.After(s.Time):
			announced = s.Time
		}
		row := make([]byte, width)
		for i := range row {
			switch at := start.Add(time.Duration(i+1) * step); {
			case at.Before(announced), !at.Before(k.TrustedUntil):
				row[i] = ' '
			case at.Before(k.NotBefore):
				row[i] = '.'
			case replaced.IsZero(), at.Before(replaced):
				row[i] = '#'
			default:
				row[i] = '-'
			}
		}
		if k.NotBefore.Before(start) && k.TrustedUntil.After(start) {
			row[0] = '<'
		}
		if k.TrustedUntil.After(end) {
			row[width-1] = '>'
		}
		fmt.Fprintf(&out, "%.10s~  %s\n", k.KeyID, strings.TrimRight(string(row), " ")) // enough of a thumbprint to tell keys apart
	}
	fmt.Fprintf(&out, "%13s%-*s%*s\n", "", width/2, stamp(start), width/2, stamp(end))
	fmt.Fprintf(&out, "%13s. announced   # signs   - trusted only\n", "")
	return out.String()
}

// span returns the period to draw: all changes near now, with some margin.
func span(s fleetkey.Status) (start, end time.Time) {
	const near = 400 * 24 * time.Hour
	times := []time.Time{s.Time}
	for _, k := range s.Keys {
		times = append(times, k.NotBefore, k.TrustedUntil)
	}
	times = slices.DeleteFunc(append(times, s.RotationDue), func(t time.Time) bool { return t.Sub(s.Time).Abs() > near })
	if !slices.ContainsFunc(times, s.Time.Before) {
		times = append(times, s.Time.AddDate(0, 1, 0)) // show that no change is due
	}
	start, end = slices.MinFunc(times, time.Time.Compare), slices.MaxFunc(times, time.Time.Compare)
	room := max(end.Sub(start)/8, time.Hour)
	return start.Add(-room), end.Add(room)
}

// successor returns when the next key of the fleet takes over from k, or the zero time.
func successor(s fleetkey.Status, k fleetkey.KeyInfo) time.Time {
	var next time.Time
	for _, other := range s.Keys {
		newer := other.NotBefore.After(k.NotBefore) && other.Role != fleetkey.RoleFormer
		if newer && (next.IsZero() || other.NotBefore.Before(next)) {
			next = other.NotBefore
		}
	}
	return next
}
