package fleetkey

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// A secretID is what a secret is called by: its name, or the ARN
//
//	arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-xxxxxx
//
// whose last six characters AWS draws when the secret is created. AWS also
// finds a secret by an ARN without them.
type secretID struct {
	text   string // as it was given
	name   string
	suffix string // with its hyphen; empty unless given
	// Of an ARN; otherwise empty.
	partition, region, account string
}

var (
	secretName = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]{1,512}$`) // AWS, CreateSecret, Name
	arnSuffix  = regexp.MustCompile(`-[A-Za-z0-9]{6}$`)
	accountID  = regexp.MustCompile(`^[0-9]{12}$`)
	awsRegion  = regexp.MustCompile(`^[a-z0-9-]+$`)
)

func parseSecretID(text string) (secretID, error) {
	id := secretID{text: text, name: text}
	if strings.HasPrefix(text, "arn:") {
		a, err := arn.Parse(text)
		name, isSecret := strings.CutPrefix(a.Resource, "secret:")
		if err != nil || !isSecret || a.Service != "secretsmanager" ||
			!awsRegion.MatchString(a.Region) || !accountID.MatchString(a.AccountID) {
			return id, errors.New("not the ARN of a secret: want arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-xxxxxx")
		}
		id.partition, id.region, id.account = a.Partition, a.Region, a.AccountID
		id.suffix = arnSuffix.FindString(name)
		id.name = strings.TrimSuffix(name, id.suffix)
	} else if suffix := arnSuffix.FindString(text); suffix != "" {
		return id, fmt.Errorf("a name must not end in a hyphen and six letters or digits (%s): "+
			"AWS takes that for the end of an ARN; choose another name, or give the secret's whole ARN", suffix)
	}
	if !secretName.MatchString(id.name) {
		return id, errors.New("a name has 1 to 512 characters out of A-Z a-z 0-9 / _ + = . @ -")
	}
	return id, nil
}

// String returns the name or ARN as it was given.
func (id secretID) String() string { return id.text }

// resource returns the ARN to grant in a policy. A star instead of the six
// characters (or of -??????) also matches while the secret does not exist yet,
// whether AWS then judges the bare name or a made-up ARN.
func (id secretID) resource(region string) string {
	a := arn.ARN{
		Partition: id.partition,
		Service:   "secretsmanager",
		Region:    region,
		AccountID: id.account,
		Resource:  "secret:" + id.name + id.suffix,
	}
	if id.suffix == "" {
		a.Resource += "*"
	}
	if a.AccountID == "" {
		a.Partition, a.AccountID = partitionOf(region), "<account-id>"
	}
	return a.String()
}

// partitionOf knows the partitions that an ordinary customer can have.
func partitionOf(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "eusc-"):
		return "aws-eusc"
	}
	return "aws"
}
