// Package client is the Go client of Mesh-Talk.
//
// Client is what an application uses: it logs in, keeps the connection (reconnect, resume, heartbeat, token refresh)
// and follows the client's rule of docs/PROTOCOL.md §4.7, so that Handler sees every stored message exactly once and
// in order, whatever the network does. Sends come back when the server has made them durable and are repeated under
// the same id until then.
//
// Conn is one bare connection that sends and receives packets to the letter. Client is built on it; tests use it to
// write dialogues, malformed ones too.
package client
