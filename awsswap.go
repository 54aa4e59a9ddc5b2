package fleetkey

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/fleetkey/fleetkey/internal/refresh"
)

// This file implements the compare-and-swap of AWSStore.Save: it replaces the value of an
// existing secret only if nobody else has done so.

const (
	// stagePending is the label of a version until it is promoted. It is not AWS's
	// AWSPENDING, whose presence on a foreign version breaks AWS's rotation.
	stagePending = "FLEETKEY_PENDING"

	// moveGrace is how long a writer waits for another one to finish. A writer that died
	// midway delays the next one by this much, once.
	moveGrace = 5 * time.Second
)

// replace is the compare-and-swap. PutSecretValue alone is not one, since it moves
// AWSCURRENT even if somebody wrote in between. So replace parks the new version under
// another label. UpdateSecretVersionStage then decides: it fails unless AWSCURRENT is still
// on prev.
//
// Parked versions count against AWS's quota of about 100 and live for at least 24 hours.
// The token, which becomes the version's ID, is therefore derived from prev: of any number
// of simultaneous writers, one creates a version, and the others are refused and wait for
// the outcome. If none comes, because the creator died or an operator moved AWSCURRENT back
// to prev, a writer uses a spare token. This is safe, since the token never decides.
func (s *AWSStore) replace(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	// Reading first keeps a late writer from creating a version, and a first version from
	// becoming current by itself, as it does in an empty secret.
	_, current, err := s.get(ctx)
	if err == nil && current != prev {
		return "", conflict(current)
	}
	var v Version
	if err == nil {
		v, err = s.park(ctx, bundle, prev)
	}
	switch {
	case errorCode(err) == codeNotFound:
		return "", fmt.Errorf("%w: the secret no longer has a value: %v", ErrConflict, err)
	case err != nil:
		return "", err
	}
	return s.promote(ctx, bundle, v, prev)
}

// park stores the version that will follow prev.
func (s *AWSStore) park(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	var err error
	for _, token := range []string{deriveToken(string(prev)), spareToken(prev)} {
		var v Version
		v, err = s.put(ctx, bundle, token)
		throttled := errors.Is(err, errThrottled)
		if errorCode(err) != codeExists && !throttled {
			return v, err
		}
		_, current, readErr := s.awaitMove(ctx, prev)
		switch {
		case readErr != nil:
			return "", readErr
		case current != prev:
			return "", conflict(current)
		case throttled:
			return "", err
		}
	}
	return "", fmt.Errorf("other writers stored a version but did not make it current (is secretsmanager:UpdateSecretVersionStage allowed?): try again in 20 minutes: %w", err)
}

// put stores a version that nobody reads yet. The SDK repeats the token when it retries, so
// a retry changes nothing.
func (s *AWSStore) put(ctx context.Context, bundle []byte, token string) (Version, error) {
	in := &secretsmanager.PutSecretValueInput{
		SecretId:           aws.String(s.id.String()),
		ClientRequestToken: aws.String(token),
		VersionStages:      []string{stagePending},
	}
	in.SecretString, in.SecretBinary = secretValue(bundle)
	out, err := call(ctx, s, s.timeout, s.client.PutSecretValue, in, bundle)
	if err != nil {
		return "", err
	}
	if aws.ToString(out.VersionId) == "" {
		return "", errForeign("PutSecretValue")
	}
	return Version(*out.VersionId), nil
}

// promote moves AWSCURRENT from prev to v. The bytes that are then current decide who won,
// not the answer: a call that succeeded but lost its answer is refused when the SDK repeats
// it, and an emulator may let another writer overwrite version v.
func (s *AWSStore) promote(ctx context.Context, bundle []byte, v, prev Version) (Version, error) {
	out, err := call(ctx, s, s.timeout, s.client.UpdateSecretVersionStage, &secretsmanager.UpdateSecretVersionStageInput{
		SecretId:            aws.String(s.id.String()),
		VersionStage:        aws.String(stageCurrent),
		MoveToVersionId:     aws.String(string(v)),
		RemoveFromVersionId: aws.String(string(prev)),
	}, nil)
	if err == nil && aws.ToString(out.ARN) == "" {
		err = errForeign("UpdateSecretVersionStage")
	}
	if errors.Is(err, ErrAccessDenied) {
		return "", err
	}
	held, current, readErr := s.awaitMove(ctx, prev)
	switch {
	case readErr != nil && err == nil:
		return "", fmt.Errorf("the new value may be current already, but cannot be read: %w", readErr)
	case readErr != nil:
		return "", fmt.Errorf("%w (and reading back whether it took effect failed: %w)", err, readErr)
	case current == v && bytes.Equal(held, bundle):
		return v, nil
	case current != prev:
		return "", conflict(current)
	case err == nil: // reads lag behind
		return v, nil
	}
	return "", err
}

// awaitMove returns the current version as soon as it is not prev, or prev after moveGrace.
// The pauses are random, so that one of many waiting writers goes first and the others see
// it.
func (s *AWSStore) awaitMove(ctx context.Context, prev Version) ([]byte, Version, error) {
	start := time.Now()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		bundle, current, err := s.get(ctx)
		if errors.Is(err, ErrNotExist) { // while a label moves, it is briefly absent
			current, err = prev, nil
		}
		if err != nil || current != prev || time.Since(start) > moveGrace {
			return bundle, current, err
		}
		if !refresh.Sleep(ctx, refresh.Spread(pause)) {
			return nil, "", ctx.Err()
		}
	}
}

func conflict(current Version) error {
	return fmt.Errorf("%w: the current version is %s", ErrConflict, current)
}

// deriveToken returns the same token for the same text in every process, in the form of a
// UUID (version 8, RFC 9562 section 5.8) as AWS recommends.
func deriveToken(from string) string {
	b := sha256.Sum256([]byte("fleetkey successor of " + from))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// spareToken returns one of three tokens per hour, so that a fleet that may put versions
// but not promote them stays below the quota.
func spareToken(prev Version) string {
	return deriveToken(fmt.Sprintf("%s in 20 minutes %d", prev, time.Now().Unix()/1200))
}
