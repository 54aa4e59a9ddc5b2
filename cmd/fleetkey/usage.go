package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// This file shapes the help that kong prints.

// newParser returns the parser of a command line.
func newParser(c *cli, options ...kong.Option) *kong.Kong {
	return kong.Must(c, append(options, kong.Name("fleetkey"),
		kong.Description("The operator's tool for the signing keys that a fleet of OpenID servers shares.\n\n"+
			"Exit status: 0 done; 1 failed; 2 wrong usage; 3 something is wrong with keys, token or surroundings; 4 not confirmed."),
		kong.Vars{"version": version(), "of": "The store is"}, kong.Groups{"policy": "Where the servers' fleetkey.Config departs from the defaults:"}, kong.Resolvers(kong.ResolverFunc(fromEnvironment)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.Help(help), kong.ValueFormatter(withVariable), kong.PostBuild(finish))...)
}

// examples are shown in the help of a command.
var examples = map[string]string{
	"status": "fleetkey status --file /var/lib/openid-server/keys.pem --rotate-every 90d\n" +
		"fleetkey status --secret prod/openid-server --json",
	"verify": "fleetkey verify --file keys.pem --issuer https://id.example.com - < token\n" +
		"fleetkey verify --issuer https://login.example.com --audience https://api.example.com - < token",
	"doctor": "fleetkey doctor --secret prod/openid-server --rotation\n" +
		"fleetkey doctor --settings appsettings.json",
	"init": "fleetkey init --secret prod/openid-server --issuer https://id.example.com\n" +
		"fleetkey init --file keys.pem --issuer https://id.example.com --algorithm ES256",
	"rotate": "fleetkey rotate --secret prod/openid-server\n" +
		"fleetkey rotate --file keys.pem --algorithm ES256 --announce 7d --yes",
	"revoke": "fleetkey revoke --file keys.pem NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs\n" +
		"fleetkey revoke --secret prod/openid-server --all --yes",
	"import": "fleetkey import signing.pfx --settings appsettings.json\n" +
		"fleetkey import tls.crt tls.key --secret prod/openid-server --keep 7d",
	"export": "fleetkey export --file keys.pem --public-key --dir /etc/haproxy/jwt\n" +
		"fleetkey export --secret prod/openid-server --jwks -o jwks.json",
	"copy":       "fleetkey copy --file keys.pem --to-secret prod/openid-server",
	"policy":     "fleetkey policy --region eu-west-1 --account 123456789012 --secret prod/openid-server --rotation",
	"completion": "fleetkey completion bash >> ~/.bashrc",
}

// finish adds what kong's tags cannot say: the examples, and that verify needs no store.
func finish(k *kong.Kong) error {
	for _, cmd := range k.Model.Children {
		cmd.Detail = "Examples:\n\n  " + strings.ReplaceAll(examples[cmd.Name], "\n", "\n  ")
		for _, flag := range cmd.Flags {
			flag.Required = flag.Required && (cmd.Name != "verify" || variable(flag) == "")
		}
	}
	return nil
}

// withVariable adds the environment variable to the help of a flag.
func withVariable(value *kong.Value) string {
	if value.Flag != nil && variable(value.Flag) != "" {
		return strings.TrimSuffix(value.Help, ".") + " ($" + variable(value.Flag) + ")."
	}
	return value.Help
}

// help prints kong's help under a usage line of ours: kong shows flags that exclude each
// other as if all were required.
func help(options kong.HelpOptions, ctx *kong.Context) error {
	if cmd := ctx.Selected(); cmd != nil {
		options.NoAppSummary = true
		_, _ = fmt.Fprintf(ctx.Stdout, "Usage: %s\n", usageLine(cmd))
	}
	return kong.DefaultHelpPrinter(options, ctx)
}

// usageLine shows a group of flags of which one must be given in parentheses, and a group of
// which one can be given in brackets.
func usageLine(cmd *kong.Node) string {
	words := []string{cmd.FullPath()}
	var shown []string
	for _, flag := range cmd.Flags {
		group := cmp.Or(strings.Join(flag.Xor, " "), flag.Name)
		if slices.Contains(shown, group) || len(flag.Xor) == 0 && !flag.Required {
			continue
		}
		shown = append(shown, group)
		var choice []string
		for _, other := range cmd.Flags {
			if other == flag || len(flag.Xor) > 0 && slices.Equal(other.Xor, flag.Xor) {
				choice = append(choice, strings.Replace(other.Summary(), "=", " ", 1))
			}
		}
		word := strings.Join(choice, " | ")
		switch {
		case !flag.Required:
			word = "[" + word + "]"
		case len(choice) > 1:
			word = "(" + word + ")"
		}
		words = append(words, word)
	}
	words = append(words, "[flags]")
	for _, arg := range cmd.Positional {
		words = append(words, arg.Summary())
	}
	return strings.Join(words, " ")
}
