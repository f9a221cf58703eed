// Package bench drives a Mesh-Talk server with load and checks what it drives: real logins, the client's rule, every
// message recognised by its number and by the text in its content.
//
// The load shares its machine with the server more often than not, so it is built to cost little: one epoll event loop
// per core that is given to it, no goroutine per connection, no buffer in an idle connection, packets scanned by hand,
// and one write per connection for all that one batch of events brought forth.
//
//	run.go      what a run is: options, phases, result
//	loop.go     the event loop: sockets, phases, timers
//	conn.go     one connection: connect, upgrade, login, packets in and out
//	out.go      acknowledgements and writes
//	mark.go     the text by which a message is recognised, and the fast scan of packets
//	private.go  the scenarios, one file each; group, fanout, idle, echo, storm, slow, mix and mixscene
//	pace.go     when an open or a closed loop sends
//	repeat.go   the frames of a large group, which are recognised instead of scanned
//	team.go     a run spread over processes: crew.go the coordinator's side, worker.go the worker's, wire.go what they say,
//	            partial.go what a worker hands over, remote.go over HTTP, clock.go whose clock is how far ahead
//	floor.go    what this kernel allows without any server, read by sink.go
//	series.go   the run second by second; report.go draws it, compare.go sets runs side by side
package bench
