// Package frameworks shows fleetkey in programs that do not use plain net/http. Each
// framework has a file to copy.
package frameworks

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fleetkey/fleetkey"
)

// Authenticate accepts a call only with a valid access token that has the scope. The handler
// gets the token with fleetkey.FromContext.
func Authenticate(verifier *fleetkey.Verifier, scope string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		values := metadata.ValueFromIncomingContext(ctx, "authorization")
		if len(values) != 1 {
			return nil, status.Error(codes.Unauthenticated, "give one bearer token")
		}
		scheme, raw, _ := strings.Cut(values[0], " ")
		token, err := verifier.Verify(ctx, raw)
		switch {
		case errors.Is(err, fleetkey.ErrUnavailable): // the token may be valid; on 401 the client would discard it
			return nil, status.Error(codes.Unavailable, "the keys are unavailable")
		case err != nil || token.SenderConstrained() || !strings.EqualFold(scheme, "Bearer"):
			return nil, status.Error(codes.Unauthenticated, "the token is invalid")
		case !token.HasScope(scope):
			return nil, status.Error(codes.PermissionDenied, "the token lacks the scope "+scope)
		}
		return handler(fleetkey.NewContext(ctx, token), request)
	}
}
