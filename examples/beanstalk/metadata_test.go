package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// metadata stands for the instance metadata service, version 2 (EC2 User Guide,
// "Use IMDSv2"): whoever asks must first fetch a session token by PUT. What it
// hands out exists nowhere else, so a request that bears it shows where the
// server has it from.
type metadata struct {
	url                          string
	tokens, credentials, regions atomic.Int64 // answers given
}

const (
	metadataRegion       = "eu-central-1"
	metadataRole         = "fleetkey-openid-server"
	metadataAccessKey    = "ASIAFROMTHEMETADATA1"
	metadataSessionToken = "session-token-from-the-metadata"
	metadataSession      = "an-imdsv2-session"
)

func startMetadata(t *testing.T) *metadata {
	m := new(metadata)
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, r *http.Request) {
		const ttl = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
		if r.Header.Get(ttl) == "" {
			http.Error(w, "no "+ttl, http.StatusBadRequest)
			return
		}
		m.tokens.Add(1)
		w.Header().Set(ttl, r.Header.Get(ttl))
		_, _ = w.Write([]byte(metadataSession))
	})
	m.answer(mux, "/latest/meta-data/iam/security-credentials/{$}", &m.credentials, metadataRole)
	m.answer(mux, "/latest/meta-data/iam/security-credentials/"+metadataRole, &m.credentials, toJSON(t, map[string]string{
		"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": metadataAccessKey, "SecretAccessKey": "a-secret-key",
		"Token": metadataSessionToken, "LastUpdated": time.Now().UTC().Format(time.RFC3339),
		"Expiration": time.Now().Add(6 * time.Hour).UTC().Format(time.RFC3339),
	}))
	m.answer(mux, "/latest/dynamic/instance-identity/document", &m.regions, toJSON(t, map[string]string{
		"region": metadataRegion, "accountId": "123456789012", "instanceId": "i-0123456789abcdef0",
	}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	m.url = server.URL
	return m
}

func (m *metadata) answer(mux *http.ServeMux, path string, count *atomic.Int64, text string) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Aws-Ec2-Metadata-Token") != metadataSession {
			http.Error(w, "IMDSv1 is disabled", http.StatusUnauthorized)
			return
		}
		count.Add(1)
		_, _ = w.Write([]byte(text))
	})
}

// signedByMetadata reports whether a request to AWS was signed (Signature
// Version 4) with the credentials and for the region of the metadata.
func signedByMetadata(r *http.Request) bool {
	authorization := r.Header.Get("Authorization")
	return strings.Contains(authorization, "Credential="+metadataAccessKey+"/") &&
		strings.Contains(authorization, "/"+metadataRegion+"/secretsmanager/aws4_request") &&
		r.Header.Get("X-Amz-Security-Token") == metadataSessionToken
}

func toJSON(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
