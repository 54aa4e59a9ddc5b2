package awsfake

import (
	"cmp"
	"maps"
	"time"
)

// request has those parameters of all operations that the tests use.
type request struct {
	Name, SecretId, ClientRequestToken   string
	VersionStage                         string
	MoveToVersionId, RemoveFromVersionId string
	SecretString                         *string
	SecretBinary                         []byte
	VersionStages                        []string
	ForceDeleteWithoutRecovery           bool
}

// reply has those results of all operations that the tests read.
type reply struct {
	ARN                string              `json:",omitempty"`
	Name               string              `json:",omitempty"`
	VersionId          string              `json:",omitempty"`
	SecretString       *string             `json:",omitempty"`
	SecretBinary       []byte              `json:",omitempty"`
	VersionIdsToStages map[string][]string `json:",omitempty"`
}

// perform performs an action on a secret, unless the secret is absent or scheduled for
// deletion.
func (s *Server) perform(action string, in *request) (*reply, *Error) {
	sec := s.find(cmp.Or(in.SecretId, in.Name))
	if action == "GetSecretValue" || action == "DescribeSecret" {
		sec = s.read(in.SecretId)
	}
	switch {
	case sec == nil && action != "CreateSecret":
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	case sec != nil && sec.deleted && action != "DescribeSecret" && action != "RestoreSecret":
		return nil, errorf("InvalidRequestException",
			"You can't perform this operation on the secret because it was marked for deletion.")
	}
	switch action {
	case "CreateSecret":
		return s.createSecret(sec, in)
	case "GetSecretValue":
		return sec.value(in.VersionStage)
	case "PutSecretValue":
		return s.putSecretValue(sec, in)
	case "UpdateSecretVersionStage":
		return s.updateSecretVersionStage(sec, in)
	case "DescribeSecret":
		out := sec.reply("")
		out.VersionIdsToStages = map[string][]string{}
		for label, id := range sec.labels {
			out.VersionIdsToStages[id] = append(out.VersionIdsToStages[id], label)
		}
		return out, nil
	case "DeleteSecret", "RestoreSecret":
		// The recovery window never ends. A forced deletion takes a few seconds in AWS, and
		// no time here.
		if in.ForceDeleteWithoutRecovery {
			s.secrets[sec.name] = append(s.secrets[sec.name], nil)
			return sec.reply(""), nil
		}
		sec = sec.copy()
		sec.deleted = action == "DeleteSecret"
		s.write(sec)
		return sec.reply(""), nil
	}
	return nil, errorf("UnknownOperationException", "%s", action)
}

func (s *Server) createSecret(sec *secret, in *request) (*reply, *Error) {
	if sec != nil {
		if v := sec.version(in.ClientRequestToken); v == nil || !v.same(in) {
			return nil, errorf("ResourceExistsException", "The operation failed because the secret %s already exists.", in.Name)
		}
		return sec.reply(in.ClientRequestToken), nil
	}
	sec = &secret{name: in.Name, made: time.Now(), arn: arnPrefix + in.Name + "-" + newSuffix(), labels: map[string]string{}}
	return s.addVersion(sec, in)
}

// addVersion stores the value, if any, under the requested labels.
func (s *Server) addVersion(sec *secret, in *request) (*reply, *Error) {
	if in.SecretString == nil && in.SecretBinary == nil {
		s.write(sec)
		return sec.reply(""), nil
	}
	v := version{id: in.ClientRequestToken, text: in.SecretString, binary: in.SecretBinary, created: time.Now()}
	if full := sec.add(v); full != nil {
		return nil, full
	}
	if len(in.VersionStages) == 0 || sec.labels[current] == "" { // the first version always gets AWSCURRENT
		sec.label(current, v.id)
	}
	for _, stage := range in.VersionStages {
		sec.label(stage, v.id)
	}
	s.write(sec)
	return sec.reply(v.id), nil
}

func (sec *secret) reply(version string) *reply {
	return &reply{ARN: sec.arn, Name: sec.name, VersionId: version}
}

func (sec *secret) value(stage string) (*reply, *Error) {
	v := sec.version(sec.labels[cmp.Or(stage, current)])
	if v == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", stage)
	}
	out := sec.reply(v.id)
	out.SecretString, out.SecretBinary = v.text, v.binary
	return out, nil
}

func (s *Server) putSecretValue(sec *secret, in *request) (*reply, *Error) {
	v := sec.version(in.ClientRequestToken)
	switch {
	case in.SecretString == nil && in.SecretBinary == nil:
		return nil, errorf("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
	case v == nil:
		return s.addVersion(sec.copy(), in)
	case s.lax:
		return s.overwrite(sec.copy(), in)
	case !v.same(in):
		return nil, errorf("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already "+
			"in use for a version of secret %s.", v.id, sec.arn)
	}
	return sec.reply(v.id), nil
}

// overwrite is what Lax lets PutSecretValue do.
func (s *Server) overwrite(sec *secret, in *request) (*reply, *Error) {
	v := sec.version(in.ClientRequestToken)
	v.text, v.binary = in.SecretString, in.SecretBinary
	maps.DeleteFunc(sec.labels, func(_, id string) bool { return id == v.id })
	for _, stage := range in.VersionStages {
		sec.label(stage, v.id)
	}
	s.write(sec)
	return sec.reply(v.id), nil
}

func (s *Server) updateSecretVersionStage(sec *secret, in *request) (*reply, *Error) {
	switch holder := sec.labels[in.VersionStage]; {
	case in.RemoveFromVersionId != holder:
		return nil, errorf("InvalidParameterException", "Staging label %s is currently attached to version %q, "+
			"so RemoveFromVersionId must be that version.", in.VersionStage, holder)
	case sec.version(in.MoveToVersionId) == nil:
		if s.lax {
			sec = sec.copy()
			delete(sec.labels, in.VersionStage)
			s.write(sec)
		}
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", in.MoveToVersionId)
	}
	sec = sec.copy()
	sec.label(in.VersionStage, in.MoveToVersionId)
	s.write(sec)
	return sec.reply(""), nil
}
