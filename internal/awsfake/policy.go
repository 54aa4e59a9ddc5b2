package awsfake

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// A Policy allows actions on resources; everything else is denied. Both are
// patterns with the wildcards * and ?, as in IAM.
type Policy struct {
	Actions   []string // such as "secretsmanager:GetSecretValue"
	Resources []string // such as "arn:aws:secretsmanager:*:*:secret:indicium/openid-server-*"

	// BareNames selects the ARN by which a policy is applied to a secret that does not exist
	// yet: one that ends in its name, or, if false, one with six made-up characters as well.
	// AWS has been seen to do the latter and documents neither. For a secret that exists, its
	// own ARN always counts.
	BareNames bool
}

// Enforce puts the caller under a policy; nil allows everything.
func (s *Server) Enforce(p *Policy) { s.locked(func() { s.policy = p }) }

// authorize precedes the lookup, as in AWS.
func (s *Server) authorize(action string, in *request) *Error {
	if s.policy == nil {
		return nil
	}
	id := cmp.Or(in.SecretId, in.Name)
	arn := arnPrefix + id
	if sec := s.find(id); sec != nil {
		arn = sec.arn
	} else if !s.policy.BareNames {
		arn += "-" + newSuffix()
	}
	if matchAny(s.policy.Actions, "secretsmanager:"+action) && matchAny(s.policy.Resources, arn) {
		return nil
	}
	return errorf("AccessDeniedException", "User: arn:aws:sts::%s:assumed-role/web/i-0abc is not authorized to perform: "+
		"secretsmanager:%s on resource: %s because no identity-based policy allows the secretsmanager:%[2]s action", Account, action, id)
}

func matchAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, s) })
}

// match reports whether s matches an IAM pattern, whose * crosses slashes.
// [path.Match] knows both wildcards, but also brackets and backslashes, which
// ARNs and actions do not contain.
func match(pattern, s string) bool {
	flat := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(s))
	return ok && err == nil
}
