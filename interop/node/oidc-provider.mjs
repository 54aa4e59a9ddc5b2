// An OpenID server made with oidc-provider. Its first line says where it is. Each line that
// comes in names the keys that it has from then on and the one that signs: a server with
// other keys takes the place of the one before, as after a deployment.
import { createInterface } from "node:readline";
import { createServer } from "node:http";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import Provider from "oidc-provider";

const kinds = {
  RS256: ["rsa", { modulusLength: 2048 }],
  PS256: ["rsa", { modulusLength: 2048 }],
  ES256: ["ec", { namedCurve: "P-256" }],
  ES384: ["ec", { namedCurve: "P-384" }],
  EdDSA: ["ed25519"],
  Ed25519: ["ed25519"],
};

console.info = console.error; // where oidc-provider writes notices, among our answers

const made = new Map();

// key returns the key of a name, as a private JWK.
function key({ kid, alg }) {
  if (!made.has(kid)) {
    made.set(kid, { ...generateKeyPairSync(...kinds[alg]).privateKey.export({ format: "jwk" }), kid, alg, use: "sig" });
  }
  return made.get(kid);
}

let handle = (_, response) => response.writeHead(503).end();
const server = createServer((request, response) => handle(request, response));

function serve({ keys, sign, audience }) {
  const provider = new Provider(`http://127.0.0.1:${server.address().port}`, {
    jwks: { keys: keys.map(key) },
    enabledJWA: { idTokenSigningAlgValues: [sign.alg] },
    clients: [{ client_id: "batch", client_secret: "secret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: sign.alg }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: () => ({ scope: "api.read", accessTokenFormat: "jwt", jwt: { sign: { alg: sign.alg, kid: sign.kid } } }),
      },
    },
  });
  handle = provider.callback();
}

await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const manifest = new URL("node_modules/oidc-provider/package.json", import.meta.url);
console.log(JSON.stringify({ issuer: `http://127.0.0.1:${server.address().port}`, version: JSON.parse(readFileSync(manifest)).version }));
for await (const line of createInterface({ input: process.stdin })) {
  let answer = {};
  try {
    serve(JSON.parse(line));
  } catch (err) {
    answer = { error: `${err.name}: ${err.message}` };
  }
  console.log(JSON.stringify(answer));
}
process.exit();
