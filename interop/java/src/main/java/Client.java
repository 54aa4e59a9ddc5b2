import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URL;
import java.util.Set;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;

/** The client that the argument names, behind HTTP: see ../README.md. */
class Client {
  static final String issuer = System.getenv("ISSUER");
  static final String audience = System.getenv("AUDIENCE");
  static final String algorithm = System.getenv("ALGORITHM");
  static final String jwksURI = System.getenv("JWKS_URI");

  /** Checks a token and returns its sub claim. */
  interface Verifier {
    String verify(String token) throws Exception;
  }

  static Verifier nimbus() throws Exception {
    var processor = new DefaultJWTProcessor<SecurityContext>();
    processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
    processor.setJWSKeySelector(new JWSVerificationKeySelector<>(
        JWSAlgorithm.parse(algorithm), JWKSourceBuilder.create(new URL(jwksURI)).build()));
    processor.setJWTClaimsSetVerifier(new DefaultJWTClaimsVerifier<>(
        audience, new JWTClaimsSet.Builder().issuer(issuer).build(), Set.of("sub", "exp")));
    return token -> processor.process(token, null).getSubject();
  }

  static Verifier spring() {
    NimbusJwtDecoder decoder = NimbusJwtDecoder.withJwkSetUri(jwksURI)
        .jwsAlgorithm(SignatureAlgorithm.from(algorithm)).validateType(false).build();
    decoder.setJwtValidator(JwtValidators.createAtJwtValidator()
        .issuer(issuer).audience(audience).build());
    return token -> decoder.decode(token).getSubject();
  }

  public static void main(String[] args) throws Exception {
    Verifier verifier = args[0].equals("spring") ? spring() : nimbus();
    int port = Integer.parseInt(System.getenv("PORT"));
    HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
    server.createContext("/", exchange -> {
      int status = 200;
      String answer;
      try {
        answer = verifier.verify(exchange.getRequestHeaders().getFirst("Authorization").substring("Bearer ".length()));
      } catch (Exception e) {
        status = 401;
        answer = e.toString();
      }
      byte[] body = answer.getBytes();
      exchange.sendResponseHeaders(status, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
    });
    server.start();
  }
}
