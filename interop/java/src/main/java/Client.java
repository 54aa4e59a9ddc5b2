import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.crypto.Ed25519Verifier;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKMatcher;
import com.nimbusds.jose.jwk.JWKSelector;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJWSException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jose.util.DefaultResourceRetriever;
import com.nimbusds.jose.util.JSONObjectUtils;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** nimbus-jose-jwt with its JWKSourceBuilder: a request a line in, an answer a line out. */
class Client {

  /** Checks a token and returns its sub claim. */
  interface Verifier {
    String verify(String token) throws Exception;
  }

  public static void main(String[] args) throws Exception {
    trust(System.getenv("FLEETKEY_AUTHORITY"));
    answer("version", version());
    Map<String, Verifier> verifiers = new HashMap<>();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      Map<String, Object> request = JSONObjectUtils.parse(line);
      String id = request.get("issuer") + " " + request.get("verifier");
      try {
        Verifier verifier = verifiers.get(id);
        if (verifier == null) {
          verifier = create((String) request.get("issuer"), (String) request.get("audience"),
              (String) request.get("algorithm"));
          verifiers.put(id, verifier);
        }
        answer("subject", verifier.verify((String) request.get("token")));
      } catch (Exception e) {
        answer("error", e.getClass().getSimpleName() + ": " + e.getMessage());
      }
    }
    System.exit(0); // the library's background threads would keep the process
  }

  static Verifier create(String issuer, String audience, String algorithm) throws Exception {
    String metadata = new DefaultResourceRetriever(10_000, 10_000)
        .retrieveResource(new URL(issuer + "/.well-known/openid-configuration")).getContent();
    URL jwksURI = new URL((String) JSONObjectUtils.parse(metadata).get("jwks_uri"));
    JWKSource<SecurityContext> keys = JWKSourceBuilder.create(jwksURI).build();
    DefaultJOSEObjectTypeVerifier<SecurityContext> type =
        new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt"));
    DefaultJWTClaimsVerifier<SecurityContext> claims = new DefaultJWTClaimsVerifier<>(
        audience, new JWTClaimsSet.Builder().issuer(issuer).build(), Set.of("sub", "exp"));
    if (algorithm.equals("EdDSA")) {
      return ed25519(keys, type, claims);
    }
    DefaultJWTProcessor<SecurityContext> processor = new DefaultJWTProcessor<>();
    processor.setJWSTypeVerifier(type);
    processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.parse(algorithm), keys));
    processor.setJWTClaimsSetVerifier(claims);
    return token -> processor.process(token, null).getSubject();
  }

  /** Ed25519 keys are beyond the processor; the library has a verifier for them all the same. */
  static Verifier ed25519(JWKSource<SecurityContext> keys, DefaultJOSEObjectTypeVerifier<SecurityContext> type,
      DefaultJWTClaimsVerifier<SecurityContext> claims) {
    return token -> {
      SignedJWT jwt = SignedJWT.parse(token);
      type.verify(jwt.getHeader().getType(), null);
      JWKMatcher matcher = JWKMatcher.forJWSHeader(jwt.getHeader());
      List<JWK> found = matcher == null ? List.of() : keys.get(new JWKSelector(matcher), null);
      if (found.isEmpty()) {
        throw new BadJWSException("no matching key found");
      }
      if (!jwt.verify(new Ed25519Verifier(found.get(0).toOctetKeyPair()))) {
        throw new BadJWSException("invalid signature");
      }
      claims.verify(jwt.getJWTClaimsSet(), null);
      return jwt.getJWTClaimsSet().getSubject();
    };
  }

  /** Trusts the authority in a PEM file, and no other, for https. */
  static void trust(String pemFile) throws Exception {
    KeyStore authorities = KeyStore.getInstance(KeyStore.getDefaultType());
    authorities.load(null, null);
    try (FileInputStream in = new FileInputStream(pemFile)) {
      authorities.setCertificateEntry("test", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    managers.init(authorities);
    SSLContext tls = SSLContext.getInstance("TLS");
    tls.init(null, managers.getTrustManagers(), null);
    HttpsURLConnection.setDefaultSSLSocketFactory(tls.getSocketFactory());
  }

  /** The library's version, from the name of its archive. */
  static String version() {
    String path = JWK.class.getProtectionDomain().getCodeSource().getLocation().getPath();
    return path.replaceAll(".*nimbus-jose-jwt-(.*)\\.jar", "$1");
  }

  static void answer(String name, String value) {
    System.out.println(JSONObjectUtils.toJSONString(Map.of(name, String.valueOf(value))));
  }
}
