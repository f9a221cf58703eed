package services

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main is what a TestMain does whose tests share services: it starts them into *set, runs the tests, ends the services and the process. The
// exit code is not 0 either when services cannot be started or ended, or when goroutines are left that tests have started. Fuzz
// targets share none: with -fuzz no service is started.
func Main(m *testing.M, set **Set, names ...Name) {
	code, err := sharing(m, set, names)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func sharing(m *testing.M, set **Set, names []Name) (code int, err error) {
	flag.Parse()
	if fuzz := flag.Lookup("test.fuzz"); fuzz != nil && fuzz.Value.String() != "" {
		return m.Run(), nil
	}
	if *set, err = Open(names...); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, (*set).Close()
}
