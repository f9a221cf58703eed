package engine

import (
	"errors"
	"net"
	"reflect"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// slim is where gnet's connection keeps its addresses: five objects of 140 bytes for what Conn has in 18. gnet reads
// none of them on a TCP connection but to hand them out, which this engine does not ask for; so they are let go of as soon as
// the connection is open. gnet has no call for it: the places are found by name and type when the engine starts, and should another
// version have others, the engine does not start.
type slim struct{ local, remote, peer uintptr }

// slimOf finds the places in the type of gc.
func slimOf(gc gnet.Conn) (s slim, err error) {
	t := reflect.TypeOf(gc)
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return s, errors.New("this version of gnet has another kind of connection")
	}
	for _, f := range []struct {
		name string
		typ  reflect.Type
		at   *uintptr
	}{
		{"localAddr", reflect.TypeFor[net.Addr](), &s.local},
		{"remoteAddr", reflect.TypeFor[net.Addr](), &s.remote},
		{"remote", reflect.TypeFor[unix.Sockaddr](), &s.peer},
	} {
		field, ok := t.Elem().FieldByName(f.name)
		if !ok || field.Type != f.typ {
			return s, errors.New("this version of gnet keeps addresses elsewhere")
		}
		*f.at = field.Offset
	}
	return s, nil
}

// apply lets go of gc's addresses. On its loop, once open; RemoteAddr and LocalAddr of gc are nil from then on.
func (s slim) apply(gc gnet.Conn) {
	p := reflect.ValueOf(gc).UnsafePointer()
	*(*net.Addr)(unsafe.Add(p, s.local)) = nil
	*(*net.Addr)(unsafe.Add(p, s.remote)) = nil
	*(*unix.Sockaddr)(unsafe.Add(p, s.peer)) = nil
}
