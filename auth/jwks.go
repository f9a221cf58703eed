package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
)

// The pace of a key set.
const (
	jwksRefresh = time.Hour       // without another reason
	jwksGap     = 5 * time.Second // between two fetches for an unknown kid: a rotation is seen soon, a flood of kids costs little
	jwksRetry   = 5 * time.Second // after a failure; doubled up to jwksRetryMax
	jwksTimeout = 5 * time.Second

	jwksRetryMax = 5 * time.Minute
	maxJWKS      = 1 << 20 // bytes of a key set
	maxKeys      = 1000    // in a key set
	maxTried     = 16      // keys for a token without kid: each costs a signature check
)

// keySet follows the key set of one issuer. Its URL comes from the configuration alone, never from a token.
//
// One goroutine fetches: at once, every hour, again after a failure, and when a token has a kid that is not there.
// What was fetched last stays in use for as long as nothing newer can be had.
type keySet struct {
	url    string
	client *http.Client
	now    func() time.Time
	logf   func(format string, args ...any)
	ctx    context.Context //nolint:containedctx // the life of the goroutine
	done   chan struct{}
	ask    chan struct{} // holds one: somebody waits for pending

	keys atomic.Pointer[setKeys] // nil until the first success

	mu struct {
		sync.Mutex
		pending chan struct{} // closed at the end of the fetch that is wanted or in progress; nil when there is none
		last    time.Time     // end of the newest fetch
		err     error         // of the newest fetch
	}
}

// setKeys is a key set as it was fetched. It never changes.
type setKeys struct {
	byKid       map[string][]setKey
	byAlgorithm map[string][]crypto.PublicKey
}

type setKey struct {
	algorithm string
	key       crypto.PublicKey
}

// openKeySet begins to follow the key set until ctx ends. last are keys of an earlier fetch, nil if there are none.
func openKeySet(ctx context.Context, o JWTOptions, last *setKeys) *keySet {
	s := &keySet{
		url: o.JWKSURL, now: o.Now, logf: o.Logf, ctx: ctx,
		done: make(chan struct{}), ask: make(chan struct{}, 1),
		client: &http.Client{
			Timeout: jwksTimeout,
			Transport: &http.Transport{ // one request an hour: no connection is kept
				Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: jwksTimeout}).DialContext,
				DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
			},
			CheckRedirect: func(r *http.Request, via []*http.Request) error {
				if len(via) > 3 || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
					return errors.New("a redirect too many, or away from https")
				}
				return nil
			},
		},
	}
	s.keys.Store(last)
	s.mu.pending = make(chan struct{})
	s.ask <- struct{}{}
	go s.run()
	return s
}

// wait returns when the goroutine has ended, after the end of its context.
func (s *keySet) wait() { <-s.done }

func (s *keySet) run() {
	defer close(s.done)
	timer := time.NewTimer(jwksRefresh)
	defer timer.Stop()
	retry := jwksRetry
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.ask:
		case <-timer.C:
		}
		err := s.fetch()
		if err != nil && s.ctx.Err() == nil {
			s.logf("auth.jwt.jwks-url: %v", err)
		}
		s.finish(err)
		next := jwksRefresh
		if err != nil {
			next, retry = retry, min(2*retry, jwksRetryMax)
		} else {
			retry = jwksRetry
		}
		timer.Reset(next)
	}
}

// finish wakes who waits for the fetch.
func (s *keySet) finish(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.last, s.mu.err = s.now(), err
	if s.mu.pending != nil {
		close(s.mu.pending)
		s.mu.pending = nil
	}
	select {
	case <-s.ask: // was asked for while the timer had begun it
	default:
	}
}

// refresh waits for a fetch: the one in progress, or a new one unless the last has just been. It returns the error of
// the newest.
func (s *keySet) refresh(ctx context.Context) error {
	s.mu.Lock()
	if s.mu.pending == nil {
		if s.now().Sub(s.mu.last) < jwksGap {
			defer s.mu.Unlock()
			return s.mu.err
		}
		s.mu.pending = make(chan struct{})
		s.ask <- struct{}{} // there is room: it is filled together with pending, and emptied before that is closed
	}
	pending := s.mu.pending
	s.mu.Unlock()
	select {
	case <-pending:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.err
}

// find is the keys that may have signed a token with this header: those of its kid, or without one all of its algorithm.
// ErrUnavailable says that the set could not be asked; the keys may be there all the same.
func (s *keySet) find(ctx context.Context, h header) ([]crypto.PublicKey, error) {
	if keys := s.keys.Load(); keys != nil {
		if found := keys.find(h); len(found) > 0 {
			return found, nil
		}
	}
	err := s.refresh(ctx)
	if keys := s.keys.Load(); keys != nil {
		if found := keys.find(h); len(found) > 0 {
			return found, nil
		}
	}
	if err != nil {
		return nil, ErrUnavailable
	}
	return nil, nil
}

func (k *setKeys) find(h header) (found []crypto.PublicKey) {
	if !h.hasKid {
		all := k.byAlgorithm[h.alg]
		return all[:min(len(all), maxTried):min(len(all), maxTried)]
	}
	for _, key := range k.byKid[h.kid] {
		if key.algorithm == h.alg {
			found = append(found, key.key)
		}
	}
	return found
}

// fetch gets the key set and puts it in the old one's place.
func (s *keySet) fetch() error {
	ctx, cancel := context.WithTimeout(s.ctx, jwksTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", s.url, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return err
	}
	keys, err := s.parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", s.url, err)
	}
	s.keys.Store(keys)
	return nil
}

// parse reads a key set. Keys that are for something else than we can check are left out: symmetric ones too, which have
// no business in a public document.
func (s *keySet) parse(b []byte) (*setKeys, error) {
	if len(b) > maxJWKS {
		return nil, fmt.Errorf("a key set of over %d bytes", maxJWKS)
	}
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Keys == nil {
		return nil, errors.New("no JSON Web Key Set")
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys (expected at most %d)", len(doc.Keys), maxKeys)
	}
	keys := &setKeys{byKid: map[string][]setKey{}, byAlgorithm: map[string][]crypto.PublicKey{}}
	for _, raw := range doc.Keys {
		var m jwkset.JWKMarshal
		if json.Unmarshal(raw, &m) != nil || m.USE != "" && m.USE != jwkset.UseSig || m.KTY == jwkset.KtyOct {
			continue
		}
		jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{}) // private parts are dropped
		if err != nil {
			s.logf("auth.jwt.jwks-url: key %q is left out: %v", m.KID, err)
			continue
		}
		algorithm, err := algorithmOf(jwk.Key())
		if err != nil || m.ALG != "" && string(m.ALG) != algorithm {
			continue
		}
		if m.KID != "" {
			keys.byKid[m.KID] = append(keys.byKid[m.KID], setKey{algorithm, jwk.Key()})
		}
		keys.byAlgorithm[algorithm] = append(keys.byAlgorithm[algorithm], jwk.Key())
	}
	return keys, nil
}
