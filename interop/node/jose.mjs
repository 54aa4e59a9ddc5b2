import { createRemoteJWKSet, jwtVerify } from "jose";
import { discover, serve } from "./serve.mjs";

await serve("jose", async ({ issuer, audience, algorithm }) => {
  const keys = createRemoteJWKSet(new URL(await discover(issuer)));
  return async (token) => {
    const { payload } = await jwtVerify(token, keys, {
      issuer, audience, algorithms: [algorithm], typ: "at+jwt", requiredClaims: ["exp"],
    });
    return payload.sub;
  };
});
