import { JwtVerifier } from "aws-jwt-verify";
import { discover, serve } from "./serve.mjs";

// The library takes the algorithm from the key in the JWKS.
await serve("aws-jwt-verify", async ({ issuer, audience }) => {
  const verifier = JwtVerifier.create({ issuer, audience, jwksUri: await discover(issuer) });
  return async (token) => (await verifier.verify(token)).sub;
});
