package rocketmq

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Only SEND_OK keeps: a message that is stored but not on the disk, or not on a slave, is as good as one whose broker is gone.
func TestOnlySendOKKeeps(t *testing.T) {
	for code, kept := range map[int]bool{
		resSuccess: true, resFlushTimeout: false, resNoSlave: false, resSlaveTimeout: false,
		1: false, 2: false, 13: false, 14: false, 16: false, resTopicNotExist: false, resPullNotFound: false, resQueryNotFound: false,
	} {
		addr := answering(t, func(c *command) *command { return &command{code: code, remark: "because\nat line 1"} })
		c := &Client{names: []string{addr}, o: Options{Group: "g"}}
		c.mu.links, c.mu.brokers = map[string]*link{}, map[string]string{"b": addr}
		err := c.send(context.Background(), "t", queue{"b", 0}, "", nil)
		if (err == nil) != kept {
			t.Errorf("code %d: %v", code, err)
		}
		if err != nil && (!strings.Contains(err.Error(), strconv.Itoa(code)) || strings.Contains(err.Error(), "line 1")) {
			t.Errorf("code %d is told as %q", code, err)
		}
		must(t, c.Close())
	}
}

// answering is the address of a peer that answers each request; nil = not at all.
func answering(t *testing.T, answer func(*command) *command) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { c.Close() })
			wg.Go(func() {
				for {
					request, err := readCommand(c)
					if err != nil {
						return
					}
					a := answer(request)
					if a == nil {
						continue
					}
					a.opaque, a.flag = request.opaque, flagResponse
					if _, err := c.Write(append(a.appendHead(nil), a.body...)); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

func TestCommand(t *testing.T) {
	want := &command{
		code: 310, opaque: 1 << 30, flag: 1, remark: "ü", fields: []field{{"a", ""}, {"", "b"}, {"topic", strings.Repeat("x", 70000)}}, body: []byte{0, 1},
	}
	frame := append(want.appendHead(nil), want.body...)
	got, err := readCommand(bytes.NewReader(frame))
	must(t, err)
	if got.code != want.code || got.opaque != want.opaque || got.flag != want.flag || got.remark != want.remark ||
		!slices.Equal(got.fields, want.fields) || !bytes.Equal(got.body, want.body) {
		t.Errorf("%.200v, want %.200v", got, want)
	}
	// What a broker before 5.0 answers to a pull that has waited.
	header := `{"code":19,"extFields":{"maxOffset":"7","minOffset":"0"},"flag":1,"language":"JAVA","opaque":5,"serializeTypeCurrentRPC":"JSON","version":401}`
	frame = binary.BigEndian.AppendUint32(nil, uint32(4+len(header)+1))
	frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(header))), header+"!"...)
	got, err = readCommand(bytes.NewReader(frame))
	must(t, err)
	if got.code != 19 || got.opaque != 5 || got.flag != 1 || got.get("maxOffset") != "7" || string(got.body) != "!" {
		t.Errorf("%+v", got)
	}
}

// HMAC-SHA1 of "key3tbody": the values in the order of the names AccessKey, queueId, topic, then the body.
func TestSign(t *testing.T) {
	c := &command{fields: []field{{"topic", "t"}, {"queueId", "3"}}, body: []byte("body")}
	c.sign("key", "secret")
	if got, want := c.get("Signature"), "xmDuMFcxHIQEUc9q35mZUuZ2aZU="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// stored1 is a message as a broker stores it.
func stored1(offset int64, flag uint32, body []byte) []byte {
	b := make([]byte, 4, 256)
	b = binary.BigEndian.AppendUint32(b, magicV1)
	b = append(b, make([]byte, 12)...)
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	b = append(b, make([]byte, 8)...)
	b = binary.BigEndian.AppendUint32(b, flag)
	b = append(b, make([]byte, 8+8+8+8+4+8)...)
	if flag&flagBornV6 != 0 {
		b = append(b, make([]byte, 12)...)
	}
	if flag&flagStoreV6 != 0 {
		b = append(b, make([]byte, 12)...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = append(b, "\x01t\x00\x00"...)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func TestMessages(t *testing.T) {
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	_, err := w.Write([]byte("inflated"))
	must(t, err)
	must(t, w.Close())
	var b []byte
	want := []string{"one", "inflated", "inflated", "v6", "\x78\x9c broken", "lz4 stays"}
	b = append(b, stored1(3, 0, []byte("one"))...)
	b = append(b, stored1(4, flagCompressed, packed.Bytes())...)
	b = append(b, stored1(5, flagCompressed|3<<8, packed.Bytes())...)
	b = append(b, stored1(6, flagBornV6|flagStoreV6, []byte("v6"))...)
	b = append(b, stored1(7, flagCompressed, []byte("\x78\x9c broken"))...)
	b = append(b, stored1(8, flagCompressed|1<<8, []byte("lz4 stays"))...)
	got, err := decodeMessages(b)
	must(t, err)
	for i, m := range got {
		if m.offset != int64(3+i) || string(m.body) != want[i] {
			t.Errorf("%d: offset %d, %q, want %q", i, m.offset, m.body, want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d messages of %d", len(got), len(want))
	}
	for n := range len(b) {
		if _, err := decodeMessages(b[:n]); n > 0 && err == nil && !wholeMessages(b, n) {
			t.Errorf("cut at %d: no error", n)
		}
	}
}

func wholeMessages(b []byte, n int) bool {
	at := 0
	for at < n {
		at += int(binary.BigEndian.Uint32(b[at:]))
	}
	return at == n
}

func TestComposite(t *testing.T) {
	var c composite
	for _, records := range [][]string{{}, {""}, {"a"}, {"a", "", strings.Repeat("b", 100000)}} {
		c.reset()
		for _, r := range records {
			if !c.add(func(b []byte) []byte { return append(b, r...) }) {
				t.Fatal("not added")
			}
		}
		body := c.seal()
		got, err := appendRecords(nil, body)
		must(t, err)
		if len(got) != len(records) {
			t.Fatalf("%d records of %d", len(got), len(records))
		}
		for i := range got {
			if string(got[i]) != records[i] {
				t.Errorf("record %d: %.20q", i, got[i])
			}
		}
	}
	body := slices.Clone(c.seal()[:200])
	body = slices.Clip(body)
	for _, b := range []struct {
		name string
		body []byte
		want error
	}{
		{"nothing", nil, errForeign},
		{"JSON", []byte(`{"to":"bob","content":1}`), errForeign},
		{"newer", append([]byte("MT\x02"), body[3:]...), errNewer},
		{"cut", body, errChecksum},
		{"a bit", append(append([]byte(nil), body[:60]...), body[60]^1), errChecksum},
	} {
		if _, err := appendRecords(nil, b.body); !errors.Is(err, b.want) {
			t.Errorf("%s: %v, want %v", b.name, err, b.want)
		}
	}
	c.reset()
	if c.add(func(b []byte) []byte { return append(b, make([]byte, maxRecord+1)...) }) || c.n != 0 || len(c.seal()) != compositeHead {
		t.Error("a record too large was added")
	}
}

// A peer that has gone silent is given up although its connection stands; who does not wait for it is not.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	silent := false
	addr := answering(t, func(*command) *command {
		mu.Lock()
		defer mu.Unlock()
		if silent {
			return nil
		}
		return &command{}
	})
	var wg sync.WaitGroup
	l := &link{addr: addr, wg: &wg, ping: func() *command { return &command{code: reqMaxOffset} }}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := l.call(ctx, &command{})
	must(t, err)
	first, err := l.get(ctx)
	must(t, err)
	mu.Lock()
	silent = true
	mu.Unlock()
	if _, err := l.call(ctx, &command{}); !errors.Is(err, errStalled) {
		t.Errorf("a silent peer: %v", err)
	}
	mu.Lock()
	silent = false
	mu.Unlock()
	_, err = l.call(ctx, &command{})
	must(t, err)
	if second, err := l.get(ctx); err != nil || second == first {
		t.Errorf("the same connection again, %v", err)
	}
	l.close()
	if _, err := l.call(ctx, &command{}); !errors.Is(err, errClosed) {
		t.Errorf("after close: %v", err)
	}
	wg.Wait()
}

// A caller that does not want to wait any more takes nothing with it.
func TestCallEndsWithItsContext(t *testing.T) {
	var mu sync.Mutex
	answer := false
	addr := answering(t, func(*command) *command {
		mu.Lock()
		defer mu.Unlock()
		if !answer {
			return nil
		}
		return &command{}
	})
	var wg sync.WaitGroup
	l := &link{addr: addr, wg: &wg}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.call(ctx, &command{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	mu.Lock()
	answer = true
	mu.Unlock()
	_, err := l.call(context.Background(), &command{})
	must(t, err)
	l.close()
	wg.Wait()
}

func FuzzReadCommand(f *testing.F) {
	f.Add((&command{code: 11, fields: []field{{"a", "b"}}, remark: "r"}).appendHead(nil))
	f.Add([]byte("\x00\x00\x00\x06\x00\x00\x00\x02{}"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) >= 4 && binary.BigEndian.Uint32(b) > 1<<20 {
			return // it would only wait for more
		}
		_, _ = readCommand(bytes.NewReader(b))
	})
}

func FuzzMessages(f *testing.F) {
	f.Add(stored1(1, flagBornV6, []byte("body")))
	f.Add(append(stored1(1, 0, empty()), stored1(2, flagCompressed, []byte("\x78\x9c"))...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		list, err := decodeMessages(b)
		if err != nil {
			return
		}
		for _, m := range list {
			_, _ = appendRecords(nil, m.body)
		}
	})
}

func FuzzComposite(f *testing.F) {
	f.Add(empty(), []byte("ab"))
	f.Fuzz(func(t *testing.T, b, record []byte) {
		_, _ = appendRecords(nil, b)
		var c composite
		c.reset()
		c.add(func(b []byte) []byte { return append(b, record...) })
		got, err := appendRecords(nil, c.seal())
		if err != nil || len(got) != 1 || !bytes.Equal(got[0], record) {
			t.Errorf("%q, %v", got, err)
		}
	})
}
