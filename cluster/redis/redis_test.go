package redis

import (
	"testing"

	"github.com/meshtalk/meshtalk/cluster/clustertest"
	"github.com/meshtalk/meshtalk/internal/services"
)

func TestSuite(t *testing.T) {
	s := services.StartRedis(t)
	clustertest.Run(t, func(*testing.T) clustertest.Open { return newCluster(s.Addr).open })
}
