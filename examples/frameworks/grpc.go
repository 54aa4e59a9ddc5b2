// Package frameworks has fleetkey in programs that are not plain net/http, one file for
// each framework, to be copied.
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

// Authenticate lets a call through only with a valid access token that has the scope. The
// handler gets the token by fleetkey.FromContext.
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
