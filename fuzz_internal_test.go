package fleetkey

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"
)

// The fuzz targets here are about what a Signer is set up with, and what AWS
// answers.

// FuzzSecretID: an id that is accepted names a secret that AWS can have, and the
// policy that errors advise fits its ARN before it exists and after.
func FuzzSecretID(f *testing.F) {
	for _, seed := range []string{
		"fleet/signing", "a", "a-b", "x-abcdef", "a+b=c@d.e_f", "é", "a b", "", strings.Repeat("n", 512), strings.Repeat("n", 513),
		"arn:aws:secretsmanager:eu-west-1:123456789012:secret:fleet/signing-abcdef", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:fleet/signing",
		"arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:a-b-cdefgh", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:-abcdef", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a*-abcdef",
		"arn:aws:secretsmanager:eu-west-1:12345678901:secret:a-abcdef", "arn:aws:sns:eu-west-1:123456789012:secret:a", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a:b", "arn:", "arn::::::", "arn:*:secretsmanager:*:123456789012:secret:a",
	} {
		f.Add(seed)
	}
	name := regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]{1,512}$`)
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseSecretID(text)
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.Equal(t, text, id.String())
		require.Regexp(t, name, id.name)
		require.Equal(t, strings.HasPrefix(text, "arn:"), id.region != "", "a name says nothing of a region")
		region := id.region
		if region == "" {
			region = "eu-west-1"
		}
		resource := id.resource(region)
		if id.region == "" {
			resource = strings.Replace(resource, "<account-id>", "123456789012", 1)
			id.partition, id.region, id.account = "aws", region, "123456789012"
		}
		arn := "arn:" + id.partition + ":secretsmanager:" + id.region + ":" + id.account + ":secret:" + id.name
		require.NotContains(t, resource, "?")
		fits := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(resource), `\*`, ".*") + "$")
		if id.suffix != "" {
			require.Regexp(t, fits, arn+id.suffix)
			require.NotContains(t, resource, "*", "one secret is meant")
			return
		}
		require.Regexp(t, fits, arn, "before it exists")
		require.Regexp(t, fits, arn+"-a1B2c3", "after")
		require.Equal(t, 1, strings.Count(resource, "*"))
	})
}

// FuzzAWSError: whatever AWS, or whoever poses as it, answers, only the one answer
// that means it makes a store look empty, on which keys are created; and an
// error shows no line of the value, and no private key of an answer.
func FuzzAWSError(f *testing.F) {
	codes := []string{"ResourceNotFoundException", "ResourceExistsException", "InvalidRequestException", "DecryptionFailure", "ExpiredTokenException", "AccessDeniedException", "AccessDenied", "LimitExceededException", "ThrottlingException", "UnknownError", "", "InternalServiceError"}
	for i, code := range codes {
		f.Add(uint8(i), code, "no", uint16(400), false)
		f.Add(uint8(i), code, "scheduled for deletion, perform: kms:Decrypt", uint16(500), true)
	}
	f.Add(uint8(0), "ValidationException", "1 validation error: value 'a line of a private key' failed", uint16(400), false)
	f.Add(uint8(0), "ValidationException", "Value '-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI' failed", uint16(400), false)
	const secret = "a line of a private key"
	f.Add(uint8(2), secret, "no", uint16(400), false)
	f.Add(uint8(0), "PRIVATE KEY-----", "no", uint16(400), false)
	ops := []string{"GetSecretValue", "CreateSecret", "PutSecretValue", "UpdateSecretVersionStage"}
	id, err := parseSecretID("fleet/signing")
	require.NoError(f, err)
	s := &AWSStore{id: id, region: "eu-west-1"}
	f.Fuzz(func(t *testing.T, n uint8, code, message string, status uint16, late bool) {
		op, exceeded := ops[int(n)%len(ops)], time.Duration(0)
		if late {
			exceeded = time.Second
		}
		answer := &smithy.OperationError{ServiceID: "Secrets Manager", OperationName: op, Err: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: int(status)}},
			Err:      &smithy.GenericAPIError{Code: code, Message: message},
		}}
		got := s.explain(op, answer, exceeded, []byte("-----BEGIN\n"+secret+"\n-----END\n"))
		require.Equal(t, code == "ResourceNotFoundException" && op == "GetSecretValue", errors.Is(got, ErrNotExist), "%v", got)
		require.NotContains(t, got.Error(), secret)
		require.NotContains(t, got.Error(), "PRIVATE KEY-----")
		if errors.Is(got, ErrAccessDenied) {
			require.Contains(t, got.Error(), "allow secretsmanager:")
			require.Contains(t, got.Error(), "arn:aws:secretsmanager:eu-west-1:<account-id>:secret:fleet/signing*")
		}
		kinds := slices.DeleteFunc([]error{ErrNotExist, ErrAccessDenied, ErrUnavailable, ErrDeletionPending, ErrConflict}, func(kind error) bool { return !errors.Is(got, kind) })
		require.LessOrEqual(t, len(kinds), 1, "an error means one thing: %v", got)
	})
}

// FuzzEnviron: the environment says the same as a file with the same setting.
func FuzzEnviron(f *testing.F) {
	for _, name := range []string{settingSecretName, settingRegion, settingKMSKeyID, settingPath, settingFile, settingsSection, strings.ToUpper(settingPath), "openidserversigningsettings:x", settingPath + ":x", "PATH", "", "OpenIDServerſigningSettings:File:Path"} {
		f.Add(envName(name), "value")
		f.Add(name, "")
		f.Add(envName(name), " ")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") || !utf8.ValidString(name+value) {
			return // no environment has such
		}
		path := strings.ReplaceAll(name, "__", ":")
		text, err := json.Marshal(map[string]string{path: value})
		require.NoError(t, err)
		inFile, err := parseSettings("appsettings.json", text)
		require.NoError(t, err)
		set, err := environSettings([]string{"HOME=/", name + "=" + value})
		require.NoError(t, err)
		require.Equal(t, valuesOf(inFile), valuesOf(set))
		require.Equal(t, inFile.check() == nil, set.check() == nil)
		_, err = environSettings([]string{name + "=" + value, strings.ToUpper(name) + "=x"})
		lower := strings.ToLower // and not EqualFold, as for check
		twice := len(set) > 0 && lower(strings.ToUpper(path)) == lower(path)
		require.Equal(t, twice, err != nil)
	})
}

// FuzzMovedNote: whatever a store is called, the note about it leaves the bundle
// what it was.
func FuzzMovedNote(f *testing.F) {
	bundle := mustEncode(f, mustKey(f, "ES256", june))
	for _, seed := range []string{"file /keys.pem", "-----BEGIN CERTIFICATE-----", "----", "-- -- --", "---", "\n-----END CERTIFICATE-----\n", "\x00", "-\n-"} {
		f.Add(seed)
	}
	want, err := parseKeySet(bundle)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, name string) {
		noted := append(slices.Clone(bundle), movedNote(namedStore{name: name})...)
		set, err := parseKeySet(noted)
		require.NoError(t, err)
		require.True(t, slices.EqualFunc(want.keys, set.keys, sameKey))
	})
}

type namedStore struct {
	KeyStore
	name string
}

func (s namedStore) String() string { return s.name }
