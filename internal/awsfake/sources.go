package awsfake

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // the SDK names its cache files by SHA-1
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A Source is a place from which the SDK gets credentials. A started Server simulates all of
// them; each of their calls has an action that faults can name.
type Source string

// The sources, and the actions of their calls.
const (
	Static      Source = "environment"         // no call
	Profile     Source = "profile"             // no call
	Process     Source = "credential_process"  // no call
	WebIdentity Source = "web identity"        // AssumeRoleWithWebIdentity
	AssumeRole  Source = "profile, AssumeRole" // AssumeRole, signed with the profile's keys
	Container   Source = "container endpoint"  // ContainerCredentials
	ThenRole    Source = "container, then AssumeRole"
	SSO         Source = "SSO"  // GetRoleCredentials
	IMDS        Source = "IMDS" // MetadataToken, MetadataRole, MetadataCredentials
)

const role = "role_arn = arn:aws:iam::" + Account + ":role/fleet\n"

// UseSource makes the SDK's default configuration take its credentials from one source, and
// hides all others, until the test ends. It calls Setenv.
func (s *Server) UseSource(t testing.TB, from Source) {
	s.Setenv(t)
	home := t.TempDir()
	path := func(name, text string) string {
		name = filepath.Join(home, name)
		if os.MkdirAll(filepath.Dir(name), 0o700) != nil || os.WriteFile(name, []byte(text), 0o600) != nil {
			t.Fatal("cannot write " + name)
		}
		return name
	}
	env := map[string]string{
		"HOME": home, "USERPROFILE": home, "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ROLE_ARN": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "",
		"AWS_ENDPOINT_URL_STS": s.URL, "AWS_ENDPOINT_URL_SSO": s.URL, "AWS_ENDPOINT_URL_SSO_OIDC": s.URL, "AWS_MAX_ATTEMPTS": "1",
	}
	keys := "aws_access_key_id = AKIDFAKE\naws_secret_access_key = " + secretKey + "\n"
	switch from {
	case Static:
		env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"] = "AKIDFAKE", secretKey
	case Profile:
		env["AWS_CONFIG_FILE"] = path("config", "[default]\n"+keys)
	case Process:
		env["AWS_CONFIG_FILE"] = path("config", "[default]\ncredential_process = cat "+path("out", s.keys(`"Version":1,"SessionToken":"x"`))+"\n")
	case WebIdentity:
		env["AWS_ROLE_ARN"], env["AWS_WEB_IDENTITY_TOKEN_FILE"] = "arn:aws:iam::"+Account+":role/fleet", path("token", "jwt-of-the-service-account")
	case AssumeRole:
		env["AWS_CONFIG_FILE"] = path("config", "[default]\n"+role+"source_profile = base\n[profile base]\n"+keys)
	case ThenRole:
		env["AWS_CONFIG_FILE"] = path("config", "[default]\n"+role+"credential_source = EcsContainer\n")
		fallthrough
	case Container:
		env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = s.URL + "/container"
	case SSO:
		env["AWS_CONFIG_FILE"] = path("config", "[default]\nsso_session = corp\nsso_account_id = "+Account+"\nsso_role_name = fleet\n"+
			"[sso-session corp]\nsso_region = "+Region+"\nsso_start_url = https://corp.awsapps.com/start\n")
		path(fmt.Sprintf(".aws/sso/cache/%x.json", sha1.Sum([]byte("corp"))), fmt.Sprintf(
			`{"accessToken":"sso-token","expiresAt":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
	case IMDS:
		env["AWS_EC2_METADATA_DISABLED"], env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "false", s.URL
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

// keys returns the JSON object that most sources return, with more members.
func (s *Server) keys(more string) string {
	return fmt.Sprintf(`{"AccessKeyId":"ASIAFAKE","SecretAccessKey":%q,%s}`, secretKey, more)
}

// source returns the action of a call to a source of credentials, and its answer; the action
// is empty for a call to Secrets Manager.
func (s *Server) source(r *http.Request) (action, reply string) {
	end := time.Now().Add(time.Hour)
	ends := end.UTC().Format(time.RFC3339)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") { // STS
		action = r.FormValue("Action")
		return action, fmt.Sprintf("<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>ASIAFAKE</AccessKeyId><SecretAccessKey>%s</SecretAccessKey>"+
			"<SessionToken>token</SessionToken><Expiration>%s</Expiration></Credentials></%[1]sResult></%[1]sResponse>", action, secretKey, ends)
	}
	switch r.URL.Path {
	case "/container":
		return "ContainerCredentials", s.keys(fmt.Sprintf(`"Token":"token","Expiration":%q`, ends))
	case "/federation/credentials":
		return "GetRoleCredentials", fmt.Sprintf(`{"roleCredentials":{"accessKeyId":"ASIAFAKE","secretAccessKey":%q,"sessionToken":"token","expiration":%d}}`,
			secretKey, end.UnixMilli())
	case "/latest/api/token":
		return "MetadataToken", "token"
	case "/latest/dynamic/instance-identity/document":
		return "MetadataRegion", `{"region":"` + Region + `"}`
	case "/latest/meta-data/iam/security-credentials/":
		return "MetadataRole", "fleet"
	case "/latest/meta-data/iam/security-credentials/fleet":
		return "MetadataCredentials", s.keys(fmt.Sprintf(`"Code":"Success","Token":"token","Expiration":%q`, ends))
	}
	return "", ""
}

// serveSource answers a call to a source of credentials.
func (s *Server) serveSource(w http.ResponseWriter, r *http.Request, action, reply string) {
	f := s.count(action)
	if e := f.Error; e != nil && f.Body == "" {
		f.Error, f.Status = nil, cmp.Or(e.Status, http.StatusBadRequest)
		switch {
		case action == "MetadataCredentials": // IMDS sends errors with a success status
			f.Body, f.Status = string(encode(e)), e.Status
		case r.Form != nil: // STS
			f.Body = fmt.Sprintf("<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>", e.Code, e.Message)
		default:
			f.Body = string(encode(map[string]string{"code": e.Code, "message": e.Message}))
		}
		w.Header().Set("Content-Type", "application/json")
	}
	if f.before(w, r) {
		return
	}
	if action == "MetadataToken" {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
	}
	f.after(w, r, []byte(reply))
}
