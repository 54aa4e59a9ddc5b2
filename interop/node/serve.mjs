// The part that both Node clients share: a request a line in, an answer a line
// out, and a cache of verifiers by name.
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

// discover returns the jwks_uri of an issuer.
export async function discover(issuer) {
  const response = await fetch(issuer + "/.well-known/openid-configuration");
  if (!response.ok) throw new Error(`discovery: status ${response.status}`);
  return (await response.json()).jwks_uri;
}

// serve answers requests with verifiers that create makes: functions of a token
// that return its sub claim.
export async function serve(name, create) {
  const manifest = new URL(`node_modules/${name}/package.json`, import.meta.url);
  console.log(JSON.stringify({ version: JSON.parse(readFileSync(manifest)).version }));
  const verifiers = new Map();
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    const id = request.issuer + " " + request.verifier;
    let answer;
    try {
      if (!verifiers.has(id)) verifiers.set(id, await create(request));
      answer = { subject: await verifiers.get(id)(request.token) };
    } catch (err) {
      answer = { error: `${err.name}: ${err.message}` };
    }
    console.log(JSON.stringify(answer));
  }
}
