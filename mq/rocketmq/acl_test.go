package rocketmq

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/meshtalk/meshtalk/internal/services"
	"github.com/meshtalk/meshtalk/mq/mqtest"
)

// A broker that asks for a user takes everything that is signed with its password, and nothing else.
func brokerWithACL(t *testing.T, set *services.Set) {
	conf := `authenticationEnabled=true
authenticationProvider=org.apache.rocketmq.auth.authentication.provider.DefaultAuthenticationProvider
authenticationMetadataProvider=org.apache.rocketmq.auth.authentication.provider.LocalAuthenticationMetadataProvider
initAuthenticationUser={"username":"mesh","password":"secret-1"}
innerClientAuthenticationCredentials={"accessKey":"mesh","secretKey":"secret-1"}
`
	must(t, os.WriteFile(filepath.Join(set.Dir, "broker", "extra.conf"), []byte(conf), 0o600))
	must(t, set.Broker.Kill()) // a stop takes it 10 s, with nothing to write
	must(t, set.Broker.Start())
	ctx, topic := context.Background(), newTopic()
	for _, wrong := range []Options{{}, {AccessKey: "mesh", SecretKey: "wrong"}, {AccessKey: "other", SecretKey: "secret-1"}} {
		wrong.NameServers = []string{set.NameServer.Addr}
		c, err := Connect(ctx, wrong)
		must(t, err)
		if _, err := open(c, topic, 2, mqtest.NewStore().Node()); err == nil {
			t.Errorf("a topic was made with %q", wrong.SecretKey)
		}
		must(t, c.Close())
	}
	c, err := Connect(ctx, Options{NameServers: []string{set.NameServer.Addr}, Group: "g", AccessKey: "mesh", SecretKey: "secret-1", Logger: logger(t)})
	must(t, err)
	defer func() { must(t, c.Close()) }()
	s := mqtest.NewStore()
	n := s.Node(0, 1)
	l, err := open(c, topic, 2, n)
	must(t, err)
	end := run(t, l, n)
	defer end()
	var h mqtest.History
	for sender := range uint32(10) {
		h.Send(t, l, sender, 100, func(int) int { return 100 })
	}
	h.Wait()
	if !s.Await(h.Kept(), patience) || len(h.Kept()) != 1000 {
		t.Errorf("%d kept, %d applied", len(h.Kept()), s.Total())
	}
	p, err := c.OpenPushes(ctx, PushOptions{Topic: "push", Group: "push"})
	must(t, err)
	must(t, c.send(ctx, "push", queue{"broker", 0}, "", []byte("{}")))
	took, stop := context.WithCancel(ctx)
	must(t, p.Run(took, func(context.Context, []byte) error { stop(); return nil }))
	if offset, ok, err := c.groupOffset(ctx, "push", "push", queue{"broker", 0}); err != nil || !ok || offset != 1 {
		t.Errorf("offset %d, %v, %v", offset, ok, err)
	}
}
