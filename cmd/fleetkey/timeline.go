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

// timeline returns the drawing, width columns wide. Times far from now are cut off, since a
// certificate lasts ten years and a rotation takes a day.
func timeline(s fleetkey.Status, now time.Time, width int) string {
	start, end := span(s, now)
	column := func(t time.Time) int {
		return max(0, min(width, int(float64(width)*t.Sub(start).Seconds()/end.Sub(start).Seconds())))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%13s%s|\n", "now ", strings.Repeat(" ", column(now)))
	for _, k := range s.Keys {
		if k.Role == fleetkey.RoleRevoked {
			continue
		}
		announced, begins, replaced := k.NotBefore, k.NotBefore, successor(s, k)
		switch {
		case begins.IsZero(): // retired by name
			replaced = start
		case begins.After(now):
			announced = now
		}
		if replaced.IsZero() || replaced.After(k.TrustedUntil) {
			replaced = k.TrustedUntil
		}
		row := strings.Repeat(" ", column(announced))
		for _, part := range []struct {
			mark string
			to   time.Time
		}{{".", begins}, {"#", replaced}, {"-", k.TrustedUntil}} {
			row += strings.Repeat(part.mark, max(0, column(part.to)-len(row)))
		}
		if row != "" && k.NotBefore.Before(start) && k.TrustedUntil.After(start) {
			row = "<" + row[1:]
		}
		if k.TrustedUntil.After(end) {
			row = row[:width-1] + ">"
		}
		fmt.Fprintf(&out, "%.10s~  %s\n", k.KeyID, row) // enough of a thumbprint to tell keys apart
	}
	fmt.Fprintf(&out, "%13s%-*s%*s\n", "", width/2, stamp(start), width-width/2, stamp(end))
	fmt.Fprintf(&out, "%13s. announced   # signs   - trusted only\n", "")
	return out.String()
}

// span returns the period to draw: all changes near now, with some margin.
func span(s fleetkey.Status, now time.Time) (start, end time.Time) {
	const near = 400 * 24 * time.Hour
	times := []time.Time{now}
	include := func(t time.Time) {
		if !t.IsZero() && t.Sub(now).Abs() < near {
			times = append(times, t)
		}
	}
	include(s.RotationDue)
	for _, k := range s.Keys {
		include(k.NotBefore)
		include(k.TrustedUntil)
	}
	if !slices.ContainsFunc(times, now.Before) {
		times = append(times, now.AddDate(0, 1, 0)) // show that no change is due
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
