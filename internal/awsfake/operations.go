package awsfake

import (
	"cmp"
	"time"
)

// request has the parameters of all operations, as far as the tests use them.
type request struct {
	Name, SecretId, ClientRequestToken   string
	VersionStage                         string
	MoveToVersionId, RemoveFromVersionId string
	SecretString                         *string
	SecretBinary                         []byte
	VersionStages                        []string
	AddReplicaRegions                    []struct{ Region string }
	ForceDeleteWithoutRecovery           bool
}

// reply has the results of all operations, as far as the tests look at them.
type reply struct {
	ARN                string              `json:",omitempty"`
	Name               string              `json:",omitempty"`
	VersionId          string              `json:",omitempty"`
	SecretString       *string             `json:",omitempty"`
	SecretBinary       []byte              `json:",omitempty"`
	VersionIdsToStages map[string][]string `json:",omitempty"`
}

var operations = map[string]func(*Server, *request) (*reply, *Error){
	"CreateSecret":             (*Server).createSecret,
	"GetSecretValue":           (*Server).getSecretValue,
	"PutSecretValue":           (*Server).putSecretValue,
	"UpdateSecretVersionStage": (*Server).updateSecretVersionStage,
	"DescribeSecret":           (*Server).describeSecret,
	"DeleteSecret":             (*Server).deleteSecret,
	"RestoreSecret":            (*Server).restoreSecret,
}

func (in *request) hasValue() bool { return in.SecretString != nil || in.SecretBinary != nil }

// check applies the limits of the API model.
func (in *request) check() *Error {
	size := len(in.SecretBinary)
	if in.SecretString != nil {
		size = len(*in.SecretString)
	}
	if in.hasValue() && (size < 1 || size > maxValue) {
		return errorf("ValidationException", "1 validation error detected: the secret value has %d bytes", size)
	}
	for _, token := range []string{in.ClientRequestToken, in.MoveToVersionId, in.RemoveFromVersionId} {
		if token != "" && (len(token) < 32 || len(token) > 64) {
			return errorf("ValidationException", "1 validation error detected: %q must have 32 to 64 characters", token)
		}
	}
	return nil
}

func (s *Server) createSecret(in *request) (*reply, *Error) {
	if !validName.MatchString(in.Name) {
		return nil, errorf("ValidationException",
			"Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!")
	}
	if sec := s.present(in.Name); sec != nil {
		if sec.deleted {
			return nil, errorf("InvalidRequestException",
				"You can't create this secret because a secret with this name is already scheduled for deletion.")
		}
		if v := sec.version(in.ClientRequestToken); v == nil || !v.same(in) {
			return nil, errorf("ResourceExistsException", "The operation failed because the secret %s already exists.", in.Name)
		}
		return sec.reply(in.ClientRequestToken), nil
	}
	sec := &secret{name: in.Name, arn: arnPrefix + in.Name + "-" + newSuffix(), labels: map[string]string{}}
	return s.addVersion(sec, in)
}

// addVersion stores the value, if there is one, under the labels asked for.
func (s *Server) addVersion(sec *secret, in *request) (*reply, *Error) {
	if !in.hasValue() {
		s.write(sec)
		return sec.reply(""), nil
	}
	v := version{id: in.ClientRequestToken, text: in.SecretString, binary: in.SecretBinary, created: time.Now()}
	if full := sec.add(v); full != nil {
		return nil, full
	}
	if len(in.VersionStages) == 0 || sec.labels[current] == "" { // the first version always gets it
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

// usable returns a secret as found, unless it is absent or about to be deleted.
func usable(sec *secret) (*secret, *Error) {
	if sec == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	if sec.deleted {
		return nil, errorf("InvalidRequestException",
			"You can't perform this operation on the secret because it was marked for deletion.")
	}
	return sec, nil
}

func (s *Server) getSecretValue(in *request) (*reply, *Error) {
	sec, bad := usable(s.read(in.SecretId))
	if bad != nil {
		return nil, bad
	}
	v := sec.version(sec.labels[cmp.Or(in.VersionStage, current)])
	if v == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", in.VersionStage)
	}
	out := sec.reply(v.id)
	out.SecretString, out.SecretBinary = v.text, v.binary
	return out, nil
}

func (s *Server) putSecretValue(in *request) (*reply, *Error) {
	sec, bad := usable(s.find(in.SecretId))
	if bad != nil {
		return nil, bad
	}
	if v := sec.version(in.ClientRequestToken); v != nil {
		if !v.same(in) {
			return nil, errorf("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already "+
				"in use for a version of secret %s.", v.id, sec.arn)
		}
		return sec.reply(v.id), nil
	}
	return s.addVersion(sec.copy(), in)
}

func (s *Server) updateSecretVersionStage(in *request) (*reply, *Error) {
	sec, bad := usable(s.find(in.SecretId))
	if bad != nil {
		return nil, bad
	}
	holder := sec.labels[in.VersionStage]
	switch {
	case holder != "" && in.RemoveFromVersionId == "":
		return nil, errorf("InvalidParameterException", "The parameter RemoveFromVersionId can't be empty. "+
			"Staging label %s is currently attached to version %s, so you must explicitly reference that version.", in.VersionStage, holder)
	case in.RemoveFromVersionId != holder:
		return nil, errorf("InvalidParameterException", "When you move staging label %s, if you specify RemoveFromVersionId, "+
			"it must be set to the version that currently has the staging label %[1]s.", in.VersionStage)
	case sec.version(in.MoveToVersionId) == nil:
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", in.MoveToVersionId)
	}
	sec = sec.copy()
	sec.label(in.VersionStage, in.MoveToVersionId)
	s.write(sec)
	return sec.reply(""), nil
}

// describeSecret also works on a secret that is scheduled for deletion.
func (s *Server) describeSecret(in *request) (*reply, *Error) {
	sec := s.read(in.SecretId)
	if sec == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	out := sec.reply("")
	out.VersionIdsToStages = map[string][]string{}
	for label, id := range sec.labels {
		out.VersionIdsToStages[id] = append(out.VersionIdsToStages[id], label)
	}
	return out, nil
}

// deleteSecret has no end of the recovery window. Where AWS takes some seconds to
// delete for good, it takes none.
func (s *Server) deleteSecret(in *request) (*reply, *Error) {
	sec, bad := usable(s.find(in.SecretId))
	if bad != nil {
		return nil, bad
	}
	if in.ForceDeleteWithoutRecovery {
		s.secrets[sec.name] = append(s.secrets[sec.name], nil)
		return sec.reply(""), nil
	}
	return s.schedule(sec, true)
}

func (s *Server) restoreSecret(in *request) (*reply, *Error) {
	sec := s.find(in.SecretId)
	if sec == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	return s.schedule(sec, false)
}

func (s *Server) schedule(sec *secret, deleted bool) (*reply, *Error) {
	sec = sec.copy()
	sec.deleted = deleted
	s.write(sec)
	return sec.reply(""), nil
}
