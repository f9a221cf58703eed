package bench

import (
	"errors"
	"testing"
)

func TestCompareClocks(t *testing.T) {
	if o, err := compareClocks(func() (*clockReading, error) { r := readClock(); return &r, nil }); err != nil || !o.same || o.ahead != 0 || o.err != 0 {
		t.Errorf("our own clock: %+v, %v", o, err)
	}
	const ahead = int64(5e12)
	o, err := compareClocks(func() (*clockReading, error) { return &clockReading{Boot: "elsewhere", Mono: monotonic() + ahead}, nil })
	if err != nil || o.same || o.ahead < ahead-o.err || o.ahead > ahead+o.err {
		t.Errorf("another machine's: %+v, %v", o, err)
	}
	if _, err := compareClocks(func() (*clockReading, error) { return nil, errors.New("gone") }); err == nil {
		t.Error("no error")
	}
	if _, err := compareClocks(func() (*clockReading, error) { return nil, nil }); err == nil {
		t.Error("an answer of something else is taken")
	}
}
