package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// script is Lua that runs inside Redis. Every script touches keys of one slot only, so that a Redis Cluster can run it. What
// it writes it writes only until a deadline by Redis's own clock (ms): a command that was given up on but still stands in
// a socket of a stopped Redis does nothing when Redis goes on.
type script struct{ text, sha string }

func newScript(text string) *script {
	text = strings.TrimSpace(text)
	sum := sha1.Sum([]byte(text))
	return &script{text: text, sha: hex.EncodeToString(sum[:])}
}

const luaNow = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// A route is one field of the hash of its user, terminal -> "incarnation epoch ref".
const luaRoute = `
local function route(s)
  local inc, epoch, ref = string.match(s, '^(%S+) (%d+) (%d+)$')
  return inc, tonumber(epoch), ref
end
`

// Results of scriptPut, the first element of its answer. The others are the epoch that stands now and the route that stood before
// (putWon) or stands now (putLost).
const (
	putLate    = 0 // after the deadline: nothing was done; the second element is Redis's time in ms
	putKept    = 1 // it stood there already
	putNew     = 2 // there was none
	putWon     = 3 // it replaced that of another node
	putLost    = 4 // a newer one of another node stands there, and stays
	putRenewed = 5 // it replaced one of this node
)

var (
	// scriptPut publishes a route. KEYS: the user's hash; ARGV: terminal, incarnation, ref, epoch, deadline, mode. In mode
	// "login" it is the newest whatever stands there; otherwise the larger epoch wins. The hash lives for an hour from then on: a node
	// compares each of its routes every 13 minutes (shardCount × leaseRenew), and what dead nodes have left goes by itself.
	scriptPut = newScript(luaNow + luaRoute + `
if now > tonumber(ARGV[5]) then return {0, string.format('%.0f', now), ''} end
local epoch = tonumber(ARGV[4])
local cur = redis.call('HGET', KEYS[1], ARGV[1])
local result = 2
if cur then
  local inc, e, ref = route(cur)
  if not inc then
    result = 2
  elseif inc == ARGV[2] then
    if ref == ARGV[3] then
      redis.call('EXPIRE', KEYS[1], 3600)
      return {1, string.format('%.0f', e), ''}
    end
    if e >= epoch then epoch = e + 1 end
    result = 5
  elseif ARGV[6] == 'login' or e < epoch then
    if e >= epoch then epoch = e + 1 end
    result = 3
  else
    return {4, string.format('%.0f', e), cur}
  end
end
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. text .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], 3600)
return {result, text, cur or ''}
`)

	// scriptDrop removes a terminal's route if it is of an incarnation. KEYS: the user's hash; ARGV: terminal, incarnation, deadline.
	// It answers like scriptPut: putLate, or putKept.
	scriptDrop = newScript(luaNow + luaRoute + `
if now > tonumber(ARGV[3]) then return {0, string.format('%.0f', now), ''} end
local cur = redis.call('HGET', KEYS[1], ARGV[1])
if cur and route(cur) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return {1, '0', ''}
`)

	// scriptClean removes what a dead incarnation left in a user's routes. KEYS: the user's hash; ARGV: incarnation.
	scriptClean = newScript(luaRoute + `
local all = redis.call('HGETALL', KEYS[1])
local n = 0
for i = 1, #all, 2 do
  if route(all[i + 1]) == ARGV[1] then n = n + redis.call('HDEL', KEYS[1], all[i]) end
end
return n
`)

	// scriptLease claims or renews the lease of a node and reads the table of all. KEYS: the leases (sorted set: ID by expiry), the
	// nodes (hash: ID -> "incarnation JSON"); ARGV: ID, incarnation, JSON, ttl in ms. Answer: state, Redis's time in ms, leases, nodes. What
	// expired a minute ago is forgotten.
	scriptLease = newScript(luaNow + `
local info = redis.call('HGET', KEYS[2], ARGV[1])
local expiry = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
local state = 'new'
if info and expiry > 0 then
  if string.match(info, '^%S+') == ARGV[2] then
    if expiry > now then state = 'kept' else state = 'lapsed' end
  elseif expiry > now then
    state = 'taken'
  end
end
if state ~= 'taken' then
  redis.call('ZADD', KEYS[1], now + ARGV[4], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - 60000)) do
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  end
end
return {state, now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2])}
`)

	// scriptLeave gives a lease back. KEYS as for scriptLease; ARGV: ID, incarnation.
	scriptLeave = newScript(`
local info = redis.call('HGET', KEYS[2], ARGV[1])
if info and string.match(info, '^%S+') == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return 0
`)

	allScripts = []*script{scriptPut, scriptDrop, scriptClean, scriptLease, scriptLeave}
)

// call is one run of a script.
type call struct {
	script *script
	keys   []string
	args   []string
}

func (c *Cluster) build(k *call) rueidis.Completed {
	return c.client.B().Evalsha().Sha1(k.script.sha).Numkeys(int64(len(k.keys))).Key(k.keys...).Arg(k.args...).Build()
}

// run runs scripts as one pipeline and gives their results in the same order. Scripts that Redis does not know (it was
// started anew) are loaded and run then.
func (c *Cluster) run(ctx context.Context, timeout time.Duration, calls []call) []rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	commands := make(rueidis.Commands, len(calls))
	for i := range calls {
		commands[i] = c.build(&calls[i])
	}
	results := c.pipeline(ctx, commands)
	var again []int
	for i, r := range results {
		if e, ok := rueidis.IsRedisErr(r.Error()); ok && e.IsNoScript() {
			again = append(again, i)
		}
	}
	if len(again) == 0 {
		return results
	}
	c.load(ctx)
	commands = commands[:0]
	for _, i := range again {
		commands = append(commands, c.build(&calls[i]))
	}
	for i, r := range c.pipeline(ctx, commands) {
		results[again[i]] = r
	}
	return results
}

// load puts the scripts into every server. One that cannot be reached shows when its scripts are run.
func (c *Cluster) load(ctx context.Context) {
	for _, server := range c.client.Nodes() {
		commands := make(rueidis.Commands, len(allScripts))
		for i, s := range allScripts {
			commands[i] = server.B().ScriptLoad().Script(s.text).Build()
		}
		c.stats.commands.Add(uint64(len(commands)))
		server.DoMulti(ctx, commands...)
	}
}

// pipeline sends commands together and counts them.
func (c *Cluster) pipeline(ctx context.Context, commands rueidis.Commands) []rueidis.RedisResult {
	if len(commands) == 0 {
		return nil
	}
	c.stats.commands.Add(uint64(len(commands)))
	return c.client.DoMulti(ctx, commands...)
}
