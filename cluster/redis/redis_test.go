package redis

import (
	"testing"

	"github.com/meshtalk/meshtalk/cluster/clustertest"
)

func TestSuite(t *testing.T) {
	s := startServer(t)
	clustertest.Run(t, func(*testing.T) clustertest.Open { return newCluster(s.address()).open })
}
