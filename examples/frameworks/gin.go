package frameworks

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/fleetkey/fleetkey"
)

// Require is Verifier.Require for gin. The handler gets the token from the request's context
// with fleetkey.FromContext.
func Require(verifier *fleetkey.Verifier, scopes ...string) gin.HandlerFunc {
	middleware := verifier.Require(scopes...)
	return func(c *gin.Context) {
		passed := false
		middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			passed, c.Request = true, r
		})).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}
