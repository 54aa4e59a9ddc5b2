package keyset

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// forms are regular expressions (RE2) for data that is not a bundle, each with a name and
// advice, which is empty if fleetkey import reads the data. Each byte is a character, «seq»
// is the head of a DER sequence, and the first match wins.
var forms = [][3]string{
	{`^\s*$`, "empty", "export the key again"},
	{`^(\xff\xfe|\xfe\xff)`, "text in UTF-16"},
	{`^([\[{"-]\x00|\x00[\[{"-])`, "text in UTF-16 without a byte order mark", "save it as UTF-8"},
	{`^\xfe\xed\xfe\xed`, "a Java keystore (JKS)", "convert it with `keytool -importkeystore -srckeystore FILE -destkeystore NEW.p12 -deststoretype PKCS12`"},
	{`^\xce\xce\xce\xce`, "a Java keystore (JCEKS)", "convert it with `keytool -importkeystore -srckeystore FILE -srcstoretype JCEKS -destkeystore NEW.p12 -deststoretype PKCS12`"},
	{`^(\x1f\x8b|PK\x03\x04)`, "a compressed file", "unpack it"},
	{`^\x1e\xf1\xb5\xb0`, "a private key of Windows (.pvk)", "convert it with `openssl rsa -inform PVK -in FILE -out NEW.key`"},
	{`^\x07\x02\x00\x00`, "a private key of Windows (a key blob)", "convert it with `openssl rsa -inform MSBLOB -in FILE -out NEW.key`"},
	{`^(30[0-9a-fA-F]{6}|2[dD]2[dD]2[dD]2[dD])[0-9a-fA-F\s]*$`, "hexadecimal", "convert it with `xxd -r -p FILE NEW`"},
	{`^data:[^,]*,`, "a data: URL", "remove everything up to the comma"},
	{`^0\x80`, "a PFX or another structure in BER", "convert a PFX with `openssl pkcs12 -in FILE -nodes -out NEW.pem`"},
	{`^«seq»\x02\x01\x03«seq»`, "a PFX (PKCS#12)"},
	{`^«seq»\x02\x01\x00«seq»\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a|-----BEGIN RSA-PSS PRIVATE KEY`, "an RSA-PSS key (id-RSASSA-PSS)",
		"turn it into a plain RSA key with `openssl rsa -in FILE -traditional -outform DER -out NEW.der`, and import that"},
	{`^«seq»\x02\x01[\x00\x01][\x30\x04].*\x06\x07\x2a\x86\x48\xce\x3d\x01\x01`, "an EC key with explicit curve parameters",
		"convert it with `openssl ec -in FILE -param_enc named_curve -out NEW.key`"},
	{`^«seq»\x02\x01[\x00\x01][\x30\x02\x04]`, "a private key in DER"},
	{`^«seq»\x06\x09|-----BEGIN (PKCS7|CMS)-----`, "a .p7b (PKCS#7), which holds no private key",
		"take its certificates out with `openssl pkcs7 -print_certs -in FILE -out NEW.pem`, and -inform DER if it is binary"},
	{`^«seq»«seq»\x06.\x2a\x86\x48\x86\xf7\x0d\x01[\x05\x0c]|-----BEGIN ENCRYPTED PRIVATE KEY`, "an encrypted private key"},
	{`\nDEK-Info:`, "a private key, encrypted as OpenSSL 0.9 did"},
	{`^«seq»«seq»\x06|-----BEGIN (RSA )?PUBLIC KEY`, "a public key",
		"it cannot sign; to accept the tokens of its system, add it to Config.Former of all servers, as Key, with its KeyID"},
	{`^«seq»«seq»\x02\x01\x00«seq»|-----BEGIN (NEW )?CERTIFICATE REQUEST`, "a certificate request",
		"import its private key alone, and `fleetkey import` makes a certificate for it"},
	{`^«seq»«seq»(\xa0\x03\x02\x01.)?\x02(.|\x81.)[\x80-\xff]`, "a certificate with a negative serial number, which Go does not read",
		"import its private key alone (`openssl pkey -in FILE -out NEW.key`), and `fleetkey import` makes a certificate for it"},
	{`^«seq»«seq»(\xa0\x03\x02\x01.)?\x02`, "a certificate in DER"},
	{`^[{\[].*-----BEGIN `, "JSON around PEM"},
	{`^\{.*"[kK]ty"`, "a JSON Web Key, or a set of them"},
	{`^\{.*("apiVersion"\s*:|"kind"\s*:\s*"Secret")|(^|\n)apiVersion:`, "a Kubernetes object",
		"take the key out with `kubectl get secret NAME -o jsonpath='{.data.FIELD}' | base64 -d > NEW`, with a backslash before each dot in FIELD"},
	{`^\{.*"[pP]arameters"`, "an RSA key of IdentityServer4 (tempkey.rsa)"},
	{`^[{\[]`, "JSON", "take the PEM, or its base64 encoding, out of the JSON"},
	{`-----\\[nr]`, `PEM with its line breaks written as \n`},
	{`^[^\n]*-----BEGIN [^\n]*-----END [^\n]*$`, "PEM without line breaks"},
	{`-----BEGIN RSA PRIVATE KEY`, "a PKCS#1 private key (RSA PRIVATE KEY)"},
	{`-----BEGIN EC PRIVATE KEY`, "a SEC 1 private key (EC PRIVATE KEY)"},
	{`-----BEGIN EC PARAMETERS`, "an EC PARAMETERS block"},
	{`-----BEGIN OPENSSH PRIVATE KEY`, "an SSH key (OPENSSH PRIVATE KEY)"},
	{`-----BEGIN TRUSTED CERTIFICATE`, "a certificate with OpenSSL trust settings", "convert it with `openssl x509 -in FILE -out NEW.crt`"},
	{`-----BEGIN (DSA PRIVATE|PGP)`, "a DSA or OpenPGP key", "it cannot sign tokens"},
	{`^PuTTY-User-Key-File`, "a PuTTY key", "convert it with `puttygen FILE -O private-openssh -o NEW.key`"},
	{`^(ssh|ecdsa)-[a-z0-9-]+ `, "an SSH public key", "it cannot sign; import the private key"},
	{`^(<\?xml[^>]*>\s*)?<RSAKeyValue`, "an RSA key in XML", "export it from .NET as PKCS#8 (RSA.ExportPkcs8PrivateKeyPem)"},
	{`^<(!DOCTYPE|html)`, "a web page", "the download failed"},
}

// maxHead is how many bytes of the data are matched. It limits the cost, since a store with
// invalid data is read repeatedly.
const maxHead = 8 << 10

var formPatterns = sync.OnceValue(func() (compiled []*regexp.Regexp) {
	for _, f := range forms {
		compiled = append(compiled, regexp.MustCompile(`(?s)`+strings.ReplaceAll(f[0], "«seq»", `0(\x82..|\x81.|\x83...|[\x00-\x7f])`)))
	}
	return compiled
})

// Form returns the name of data that is not a bundle, and what to do with it. The advice is
// empty if fleetkey import reads the data, and the name is empty if the form is unknown.
// Neither quotes the data.
func Form(data []byte) (name, advice string) {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	characters := make([]rune, min(len(data), maxHead))
	for i := range characters {
		characters[i] = rune(data[i])
	}
	text := string(characters)
	if i := slices.IndexFunc(formPatterns(), func(p *regexp.Regexp) bool { return p.MatchString(text) }); i >= 0 {
		return forms[i][1], forms[i][2]
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if name, advice = Form(block.Bytes); advice != "" { // a key or certificate of an unsupported kind
			return name, advice
		}
	}
	unpadded := strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(string(bytes.Join(bytes.Fields(data), nil)))
	plain, err := base64.RawStdEncoding.DecodeString(unpadded)
	if err != nil {
		return "", ""
	}
	if name, advice = Form(plain); name == "" && !bytes.Contains(plain, []byte("-----BEGIN ")) {
		return "", ""
	}
	return "base64 of " + cmp.Or(name, "PEM"), advice
}

// hint returns the end of an error about data that is not a bundle.
func hint(data []byte) string {
	if name, advice := Form(data); name != "" {
		return ": this is " + name + "; " + cmp.Or(advice, "`fleetkey import FILE` converts it to a bundle")
	}
	return ""
}
