package config

import "strings"

// Nearest is the known key with the cheapest edits from name: letters put in, left out, swapped, and at a higher price
// changed, since who shortens a name is nearer than who writes another. Of equally near ones the first in the table wins.
func Nearest(name string) string {
	var known []string
	for _, f := range fields() {
		known = append(known, f.Name)
	}
	return NearestOf(name, known)
}

// NearestOf is the same among any names; "" when there are none.
func NearestOf(name string, known []string) string {
	// A dash, a dot and an underscore are easily taken for each other: they count as the same first.
	plain := strings.NewReplacer("-", ".", "_", ".")
	best, bestEdits := "", 0
	for _, k := range known {
		edits := 2*distance(plain.Replace(strings.ToLower(name)), plain.Replace(k)) + min(1, distance(name, k))
		if best == "" || edits < bestEdits {
			best, bestEdits = k, edits
		}
	}
	return best
}

// The prices of edits.
const (
	change = 3
	insert = 2 // or leave out
	swap   = 2
)

// distance is the price of the edits between two names (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = insert * j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = insert * i
		for j := 1; j <= len(b); j++ {
			row[j] = min(last[j]+insert, row[j-1]+insert, last[j-1]+change)
			if a[i-1] == b[j-1] {
				row[j] = min(row[j], last[j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+swap)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
