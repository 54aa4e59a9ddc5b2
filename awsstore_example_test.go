package fleetkey_test

import (
	"context"
	"log"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/fleetkey/fleetkey"
)

// On a machine with a role, the name is enough.
func ExampleNewAWSStore() {
	ctx := context.Background()
	store, err := fleetkey.NewAWSStore(ctx, "indicium/openid-server-production")
	if err != nil {
		log.Fatal(err)
	}
	log.Print("keys are in ", store)
}

// A client of one's own, here with another profile, and a customer managed key.
func ExampleNewAWSStore_options() {
	ctx := context.Background()
	cfg, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithSharedConfigProfile("keys"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := fleetkey.NewAWSStore(ctx, "indicium/openid-server-production", func(o *fleetkey.AWSOptions) {
		o.Client = secretsmanager.NewFromConfig(cfg)
		o.KMSKeyID = "alias/openid-server"
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Print("keys are in ", store)
}
