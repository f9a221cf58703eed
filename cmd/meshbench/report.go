package main

import (
	"errors"
	"os"

	"github.com/meshtalk/meshtalk/bench"
)

// writeReport writes the page of r to a file; "" = none is wanted.
func writeReport(file string, r *bench.Result) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(bench.WriteReport(f, r), f.Close())
}
