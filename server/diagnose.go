package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Level is how good what was found is.
type Level int

// A Warning costs something in some cases only, a Failure keeps the server from starting or from what it promises.
const (
	Good Level = iota
	Warning
	Failure
)

// Finding is what a look at a service has found. Problem, Limits and Mend are empty when it is Good: what is wrong, what that limits,
// and what mends it, a command where there is one.
type Finding struct {
	Check, Value          string
	Level                 Level
	Problem, Limits, Mend string
}

// but is f with something that is wrong with it.
func (f Finding) but(l Level, problem, limits, mend string) Finding {
	f.Level, f.Problem, f.Limits, f.Mend = l, problem, limits, mend
	return f
}

// diagnoseTimeout bounds the look at one service.
const diagnoseTimeout = 10 * time.Second

// Diagnose asks the services that o names what they are, how they are set and how fast they answer: PostgreSQL, RocketMQ and Redis. It
// changes nothing, and takes 10 s a service at most. With no service in o there is no finding.
func Diagnose(ctx context.Context, o Options) (list []Finding) {
	for _, look := range []func(context.Context, Options) []Finding{diagnosePostgres, diagnoseRocketMQ, diagnoseRedis} {
		ctx, cancel := context.WithTimeout(ctx, diagnoseTimeout)
		list = append(list, look(ctx, o)...)
		cancel()
	}
	return list
}

// away is the finding about a service that gives no answer, or none of the kind that is needed.
func away(key, address string, err error) Finding {
	f := Finding{Check: key, Value: address}
	mend := fmt.Sprintf("another %s, or what the error asks for", key)
	first, _, _ := strings.Cut(strings.ReplaceAll(address, ";", ","), ",")
	host, port, noPort := net.SplitHostPort(first)
	var network net.Error
	if noPort == nil && (errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)) {
		mend = fmt.Sprintf("nc -vz %s %s (until it answers: start the service, open the firewall), or another %s", host, port, key)
	}
	return f.but(Failure, "cannot be used: "+err.Error(), "the server does not start", mend)
}

// short is a duration for people.
func short(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }
