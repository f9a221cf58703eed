// Package hub knows who is here and who gets what: the sharded registry of sessions, and the path of a message from
// its submission over the commit to its delivery.
package hub

// Hub is one node's hub. All its methods are safe for concurrent use.
type Hub struct{}
