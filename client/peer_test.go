package client

import (
	"net"
	"testing"

	"github.com/meshtalk/meshtalk/codec"
)

// peer is the server's end of one connection, built on the codec's server side.
type peer struct {
	nc        net.Conn
	transport codec.Transport
	framer    codec.Framer
	buf       []byte
	handshake codec.Handshake
}

// accept takes one connection of ln and, for WebSocket, upgrades it.
func accept(ln net.Listener, transport codec.Transport) (*peer, error) {
	nc, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	return upgrade(nc, transport)
}

// upgrade makes a peer of an accepted socket.
func upgrade(nc net.Conn, transport codec.Transport) (*peer, error) {
	p := &peer{nc: nc, transport: transport, framer: &codec.TCPFramer{Max: 1 << 20}}
	if transport == codec.TCP {
		return p, nil
	}
	p.framer = &codec.WSFramer{Max: 1 << 20}
	for {
		h, response, n, ok := codec.Upgrade(p.buf, &codec.UpgradeRules{Path: "/im"})
		if response != nil {
			p.buf = p.buf[n:]
			p.handshake = h
			var err error
			if _, err = nc.Write(response); err == nil && !ok {
				err = net.ErrClosed
			}
			if err != nil {
				_ = nc.Close()
				return nil, err
			}
			return p, nil
		}
		if err := p.read(); err != nil {
			_ = nc.Close()
			return nil, err
		}
	}
}

func (p *peer) read() error {
	chunk := make([]byte, 16<<10)
	n, err := p.nc.Read(chunk)
	p.buf = append(p.buf, chunk[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// recv returns the next message or control frame; the payload is the caller's.
func (p *peer) recv() (codec.Message, error) {
	for {
		msg, n, _, err := p.framer.Next(p.buf)
		if err != nil {
			return msg, err
		}
		msg.Payload = append([]byte(nil), msg.Payload...)
		p.buf = p.buf[n:]
		if msg.Op != 0 {
			return msg, nil
		}
		if n > 0 {
			continue
		}
		if err := p.read(); err != nil {
			return msg, err
		}
	}
}

// frame is packet as the server frames it.
func (p *peer) frame(op codec.Op, packet []byte) []byte {
	return append(codec.AppendHeader(nil, p.transport, op, len(packet)), packet...)
}

func (p *peer) send(packet []byte) error {
	_, err := p.nc.Write(p.frame(codec.OpText, packet))
	return err
}

// mustListen is a listener on a free port of the loopback and its client address.
func mustListen(t testing.TB, transport codec.Transport) (net.Listener, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	if transport == codec.WebSocket {
		return ln, "ws://" + ln.Addr().String() + "/im"
	}
	return ln, "tcp://" + ln.Addr().String()
}
