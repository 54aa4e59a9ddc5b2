package awsfake

import (
	"maps"
	"slices"
	"time"
)

// request has the parameters of all operations.
type request struct {
	Name, SecretId, ClientRequestToken   string
	VersionId, VersionStage              string
	MoveToVersionId, RemoveFromVersionId string
	Description, KmsKeyId                string
	SecretString                         *string
	SecretBinary                         []byte
	VersionStages                        []string
	Tags                                 []struct{ Key, Value string }
	AddReplicaRegions                    []struct{ Region string }
	RecoveryWindowInDays                 int
	ForceDeleteWithoutRecovery           bool
}

// reply has the results of all operations.
type reply struct {
	ARN                string              `json:",omitempty"`
	Name               string              `json:",omitempty"`
	VersionId          string              `json:",omitempty"`
	VersionStages      []string            `json:",omitempty"`
	SecretString       *string             `json:",omitempty"`
	SecretBinary       []byte              `json:",omitempty"`
	CreatedDate        float64             `json:",omitempty"`
	DeletedDate        float64             `json:",omitempty"`
	DeletionDate       float64             `json:",omitempty"`
	VersionIdsToStages map[string][]string `json:",omitempty"`
}

var operations = map[string]func(*Server, *request) (*reply, *Error){
	"CreateSecret":             (*Server).createSecret,
	"GetSecretValue":           (*Server).getSecretValue,
	"PutSecretValue":           (*Server).putSecretValue,
	"UpdateSecret":             (*Server).putSecretValue, // of its parameters only the value
	"UpdateSecretVersionStage": (*Server).updateSecretVersionStage,
	"DescribeSecret":           (*Server).describeSecret,
	"DeleteSecret":             (*Server).deleteSecret,
	"RestoreSecret":            (*Server).restoreSecret,
}

func (in *request) id() string {
	if in.SecretId != "" {
		return in.SecretId
	}
	return in.Name
}

func (in *request) hasValue() bool { return in.SecretString != nil || in.SecretBinary != nil }

// check applies the limits of the API model.
func (in *request) check() *Error {
	size := len(in.SecretBinary)
	if in.SecretString != nil {
		size = len(*in.SecretString)
	}
	switch {
	case in.SecretString != nil && in.SecretBinary != nil:
		return errorf("InvalidParameterException", "You can't specify both a binary secret value and a string secret value in the same secret.")
	case in.hasValue() && (size < 1 || size > maxValue):
		return errorf("ValidationException", "1 validation error detected: the secret value has %d bytes", size)
	}
	for _, token := range []string{in.ClientRequestToken, in.VersionId, in.MoveToVersionId, in.RemoveFromVersionId} {
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
		if !sec.deleted.IsZero() {
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
		return &reply{ARN: sec.arn, Name: sec.name}, nil
	}
	v := version{id: in.ClientRequestToken, text: in.SecretString, binary: in.SecretBinary, created: time.Now()}
	if v.id == "" {
		v.id = newToken()
	}
	if full := sec.add(v); full != nil {
		return nil, full
	}
	if len(in.VersionStages) == 0 || sec.labels[current] == "" { // the first version always gets it
		sec.label(current, v.id)
	}
	for _, stage := range in.VersionStages {
		sec.label(stage, v.id)
	}
	if len(sec.labels) > maxLabels {
		return nil, errorf("LimitExceededException", "A secret can have at most %d staging labels.", maxLabels)
	}
	s.write(sec)
	return sec.reply(v.id), nil
}

func (sec *secret) reply(version string) *reply {
	return &reply{ARN: sec.arn, Name: sec.name, VersionId: version, VersionStages: sec.stages(version)}
}

// usable returns a secret as found, unless it is absent or about to be deleted.
func usable(sec *secret) (*secret, *Error) {
	if sec == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	if !sec.deleted.IsZero() {
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
	stage := in.VersionStage
	if stage == "" && in.VersionId == "" {
		stage = current
	}
	id := in.VersionId
	if id == "" {
		id = sec.labels[stage]
	}
	v := sec.version(id)
	switch {
	case v == nil && in.VersionId != "":
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", id)
	case v == nil:
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", stage)
	case stage != "" && sec.labels[stage] != id:
		return nil, errorf("InvalidRequestException", "You provided a VersionStage that is not associated to the provided VersionId.")
	}
	out := sec.reply(id)
	out.SecretString, out.SecretBinary = v.text, v.binary
	out.CreatedDate = seconds(v.created)
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
	case in.MoveToVersionId == "" && in.VersionStage == current:
		return nil, errorf("InvalidParameterException", "You can't remove the staging label AWSCURRENT without moving it.")
	case in.MoveToVersionId != "" && sec.version(in.MoveToVersionId) == nil:
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", in.MoveToVersionId)
	}
	sec = sec.copy()
	if in.MoveToVersionId == "" {
		delete(sec.labels, in.VersionStage)
	} else {
		sec.label(in.VersionStage, in.MoveToVersionId)
	}
	s.write(sec)
	return &reply{ARN: sec.arn, Name: sec.name}, nil
}

func (s *Server) describeSecret(in *request) (*reply, *Error) {
	sec := s.read(in.SecretId)
	if sec == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	out := &reply{ARN: sec.arn, Name: sec.name, VersionIdsToStages: map[string][]string{}}
	for _, id := range slices.Collect(maps.Values(sec.labels)) {
		out.VersionIdsToStages[id] = sec.stages(id)
	}
	if !sec.deleted.IsZero() {
		out.DeletedDate = seconds(sec.deleted)
	}
	return out, nil
}

func (s *Server) deleteSecret(in *request) (*reply, *Error) {
	sec, bad := usable(s.find(in.SecretId))
	if bad != nil {
		return nil, bad
	}
	if in.ForceDeleteWithoutRecovery { // at once, where AWS takes some seconds
		s.secrets[sec.name] = append(s.secrets[sec.name], nil)
		return &reply{ARN: sec.arn, Name: sec.name, DeletionDate: seconds(time.Now())}, nil
	}
	days := in.RecoveryWindowInDays
	if days == 0 {
		days = 30
	}
	if days < 7 || days > 30 {
		return nil, errorf("InvalidParameterException", "RecoveryWindowInDays must be between 7 and 30 days (inclusive).")
	}
	sec = sec.copy()
	sec.deleted = time.Now()
	sec.gone = sec.deleted.AddDate(0, 0, days)
	s.write(sec)
	return &reply{ARN: sec.arn, Name: sec.name, DeletionDate: seconds(sec.gone)}, nil
}

func (s *Server) restoreSecret(in *request) (*reply, *Error) {
	sec := s.find(in.SecretId)
	if sec == nil {
		return nil, errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
	}
	sec = sec.copy()
	sec.deleted, sec.gone = time.Time{}, time.Time{}
	s.write(sec)
	return &reply{ARN: sec.arn, Name: sec.name}, nil
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
