package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

const someTraces = `File: meshtalk
Type: cpu
Duration: 5s, Total samples = 40ms
-----------+-------------------------------------------------------
      10ms   internal/runtime/syscall.Syscall6
             syscall.RawSyscall6
             github.com/meshtalk/meshtalk/engine.(*Loop).write (inline)
             github.com/meshtalk/meshtalk/engine.(*Loop).drain
-----------+-------------------------------------------------------
  label:  x
      20ms   runtime.memmove
             github.com/meshtalk/meshtalk/engine.(*Loop).drain
-----------+-------------------------------------------------------
      10ms   github.com/x/y.Map[...].<Get>&
`

func TestFlame(t *testing.T) {
	root, err := readTraces(strings.NewReader(someTraces))
	if err != nil {
		t.Fatal(err)
	}
	drain := root.sub["engine.(*Loop).drain"]
	if root.time != 40*time.Millisecond || drain == nil || drain.time != 30*time.Millisecond || len(drain.sub) != 2 ||
		drain.sub["engine.(*Loop).write"].sub["syscall.RawSyscall6"].sub["syscall.Syscall6"].time != 10*time.Millisecond {
		t.Errorf("%+v", root)
	}
	if depthOf(root) != 5 {
		t.Errorf("%d rows", depthOf(root))
	}
	var out bytes.Buffer
	if err := WriteFlame(&out, "a <b>", strings.NewReader(someTraces)); err != nil {
		t.Fatal(err)
	}
	boxes := 0
	for d := xml.NewDecoder(&out); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "g" {
			boxes++
		}
	}
	if boxes != 7 {
		t.Errorf("%d boxes", boxes)
	}
	for _, bad := range []string{"", "File: x\nno stacks\n", "-----------+---\n nonsense\n"} {
		if err := WriteFlame(io.Discard, "", strings.NewReader(bad)); err == nil {
			t.Errorf("%q was drawn", bad)
		}
	}
}
