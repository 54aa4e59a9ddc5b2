package fleetkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey/internal/jwks"
)

// JWKSPath is the path below the issuer at which to serve [Signer.JWKS]. [Signer.Discovery]
// gives this address to clients.
const JWKSPath = "/.well-known/jwks.json"

// DiscoveryPath is the path below the issuer where OpenID clients look for
// [Signer.Discovery] (OpenID Connect Discovery 1.0 section 4).
const DiscoveryPath = jwks.DiscoveryPath

// OAuthDiscoveryPath is the path where OAuth 2.0 clients look for [Signer.Discovery] (RFC
// 8414 section 3.1). It comes before the issuer's own path: for the issuer
// https://example.com/tenant, serve OAuthDiscoveryPath + "/tenant".
const OAuthDiscoveryPath = jwks.OAuthDiscoveryPath

// JWKS returns a handler that serves the public keys as a JSON Web Key Set (RFC 7517
// section 5). The set contains every trusted key, including announced ones, except those of
// a [Former] with another issuer. It is encoded when it changes, not for each request.
// Clients may cache it for Config.JWKSMaxAge and revalidate it by its ETag. JWKS never
// serves an empty set, which clients would understand as "trust nothing".
func (s *Signer) JWKS() http.Handler {
	cacheControl := "public, max-age=" + strconv.FormatInt(int64(s.cfg.JWKSMaxAge/time.Second), 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		current := s.verifier.current.Load()
		if current.JWKS == nil {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "no key is trusted now", http.StatusServiceUnavailable)
			return
		}
		serveJSON(w, r, current.JWKS, current.ETag, cacheControl)
	})
}

// Discovery returns a handler that serves the metadata of an OpenID Provider (OpenID
// Connect Discovery 1.0 section 3) and OAuth 2.0 authorization server (RFC 8414 section 2).
// It sets issuer, jwks_uri, id_token_signing_alg_values_supported, subject_types_supported
// and, if metadata has an authorization_endpoint, response_types_supported. Members of
// metadata override these, except that the issuer must be Config.Issuer. Members that are
// nil or an empty list are omitted (OpenID Connect Discovery 1.0 section 4.2, RFC 8414
// section 3.2).
//
// Call Discovery during setup: it panics on metadata that cannot be served.
func (s *Signer) Discovery(metadata map[string]any) http.Handler {
	members := map[string]any{
		"issuer":                  s.cfg.Issuer,
		"jwks_uri":                strings.TrimSuffix(s.cfg.Issuer, "/") + JWKSPath,
		"subject_types_supported": []string{"public"},
	}
	if metadata["authorization_endpoint"] != nil {
		members["response_types_supported"] = []string{"code"}
	}
	maps.Copy(members, metadata)
	if members["issuer"] != s.cfg.Issuer {
		panic(fmt.Sprintf("fleetkey: Discovery: metadata has issuer %v, but Config.Issuer is %q", members["issuer"], s.cfg.Issuer))
	}
	document := map[string]any{}
	for name, value := range members {
		text, err := json.Marshal(value)
		if err != nil {
			panic("fleetkey: Discovery: metadata: " + err.Error())
		}
		if string(text) != "null" && string(text) != "[]" {
			document[name] = json.RawMessage(text)
		}
	}
	const algorithms = "id_token_signing_alg_values_supported"
	_, given := metadata[algorithms]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		current := maps.Clone(document)
		if !given {
			current[algorithms] = s.algorithms()
		}
		body, err := json.Marshal(current)
		if err != nil { // members were marshaled above, and only strings added
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
			return
		}
		serveJSON(w, r, body, "", "public, max-age=900")
	})
}

// algorithms returns the trusted keys' algorithms, and RS256, which a provider must list.
func (s *Signer) algorithms() []string {
	names := []string{"RS256"}
	for _, k := range s.PublicKeys() {
		names = append(names, k.Algorithm)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// serveJSON answers GET and HEAD, and If-None-Match (RFC 9110 section 13.1.2) by the entity
// tag. It ignores Range, with which one request could ask for a small document thousands of
// times.
func serveJSON(w http.ResponseWriter, r *http.Request, body []byte, etag, cacheControl string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", cacheControl)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Access-Control-Allow-Origin", "*") // public data, and browser apps need it
	if etag != "" {
		h.Set("ETag", etag)
		for tag := range strings.SplitSeq(strings.Join(r.Header.Values("If-None-Match"), ","), ",") {
			if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == etag || tag == "*" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

type contextKey struct{}

// NewContext returns a context that carries a verified token, for programs that do not
// receive tokens in the Authorization header but in gRPC metadata or a cookie, for example.
func NewContext(ctx context.Context, t *Token) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// FromContext returns the token stored by [Verifier.Require] or [NewContext].
func FromContext(ctx context.Context) (*Token, bool) {
	t, ok := ctx.Value(contextKey{}).(*Token)
	return t, ok
}

// Require returns middleware that admits only requests with a valid access token in the
// Authorization header (RFC 6750 section 2.1) that has all the given scopes. [FromContext]
// then returns the token. Other requests get 400, 401 or 403 and a WWW-Authenticate header
// (RFC 6750 section 3), which gives the error code but not the cause; that is logged at
// level Debug. If the keys cannot be loaded to check a token ([ErrUnavailable]), the answer
// is 503 with a Retry-After header, since clients discard a token on 401. A
// sender-constrained token (RFC 7800) is not accepted as a bearer token.
func (v *Verifier) Require(scopes ...string) func(http.Handler) http.Handler {
	needed := strings.Join(scopes, " ")
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, err := bearer(r.Header)
			if err != nil {
				v.refuse(w, r, http.StatusBadRequest, `error="invalid_request"`, err)
				return
			}
			if raw == "" {
				v.refuse(w, r, http.StatusUnauthorized, "", errors.New("no bearer token"))
				return
			}
			token, err := v.Verify(r.Context(), raw)
			if errors.Is(err, ErrUnavailable) {
				w.Header().Set("Retry-After", retryAfter)
				v.refuse(w, r, http.StatusServiceUnavailable, "", err)
				return
			}
			if err == nil && token.SenderConstrained() {
				err = errors.New("the token is sender-constrained, so it is not a bearer token")
			}
			if err != nil {
				v.refuse(w, r, http.StatusUnauthorized, `error="invalid_token", error_description="`+publicReason(err)+`"`, err)
				return
			}
			for _, scope := range scopes {
				if !token.HasScope(scope) {
					v.refuse(w, r, http.StatusForbidden, `error="insufficient_scope", scope="`+needed+`"`, fmt.Errorf("the token lacks scope %q", scope))
					return
				}
			}
			next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), token)))
		})
	}
}

// bearer returns the bearer token in the Authorization header, or "".
func bearer(h http.Header) (string, error) {
	values := h.Values("Authorization")
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", errors.New("more than one Authorization header")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	token = strings.Trim(token, " ")
	if token == "" {
		return "", errors.New("no token after Bearer")
	}
	return token, nil
}

// publicReason returns what a client may know: whether to get a new token, or that this one
// cannot be used here.
func publicReason(err error) string {
	if errors.Is(err, ErrExpired) {
		return "the token is expired"
	}
	return "the token is invalid"
}

// retryAfter is the time, in seconds, after which the keys may be loaded again for an
// unknown kid.
const retryAfter = "10"

// refuse answers with a challenge, unless the fault is ours, and logs the reason but not
// the token.
func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request, status int, parameters string, reason error) {
	v.logger.DebugContext(r.Context(), "rejected a request", "status", status, "path", r.URL.Path[:min(len(r.URL.Path), 100)], "reason", reason)
	if status < http.StatusInternalServerError {
		w.Header().Set("WWW-Authenticate", strings.TrimSpace("Bearer "+parameters))
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, http.StatusText(status), status)
}
