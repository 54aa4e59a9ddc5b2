// Package secretid parses the name or ARN of a secret of AWS Secrets Manager, and returns
// the ARN that a policy must grant. It is pure.
package secretid

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// An ID identifies a secret by its name or by its ARN
//
//	arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-xxxxxx
//
// whose last six characters are chosen by AWS when the secret is created. AWS also finds a
// secret by its ARN without them.
type ID struct {
	text   string // as it was given
	Name   string
	Suffix string // with its hyphen; may be empty
	// Of an ARN; otherwise empty.
	Region             string
	partition, account string
}

var (
	secretName = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]{1,512}$`) // AWS, CreateSecret, Name
	arnSuffix  = regexp.MustCompile(`-[A-Za-z0-9]{6}$`)
	accountID  = regexp.MustCompile(`^[0-9]{12}$`)
	region     = regexp.MustCompile(`^[a-z0-9-]+$`)
)

// Parse parses a name or an ARN.
func Parse(text string) (ID, error) {
	id := ID{text: text, Name: text}
	if strings.HasPrefix(text, "arn:") {
		a, err := arn.Parse(text)
		name, isSecret := strings.CutPrefix(a.Resource, "secret:")
		if err != nil || !isSecret || a.Service != "secretsmanager" ||
			!IsRegion(a.Region) || !accountID.MatchString(a.AccountID) {
			return id, errors.New("not the ARN of a secret: want arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-xxxxxx")
		}
		id.partition, id.Region, id.account = a.Partition, a.Region, a.AccountID
		id.Suffix = arnSuffix.FindString(name)
		id.Name = strings.TrimSuffix(name, id.Suffix)
	} else if suffix := arnSuffix.FindString(text); suffix != "" {
		return id, fmt.Errorf("a name must not end in a hyphen and six letters or digits (%s): "+
			"AWS mistakes that for the end of an ARN; choose another name, or give the secret's full ARN", suffix)
	}
	if !secretName.MatchString(id.Name) {
		return id, errors.New("a name must have 1 to 512 of the characters A-Z a-z 0-9 / _ + = . @ -")
	}
	return id, nil
}

// IsRegion reports whether a text looks like a region.
func IsRegion(text string) bool { return region.MatchString(text) }

// String returns the name or ARN as it was given.
func (id ID) String() string { return id.text }

// Resource returns the ARN to grant in a policy. A star instead of the six characters (or
// of -??????) also matches while the secret does not exist, whether AWS then checks the
// bare name or an ARN with made-up characters.
func (id ID) Resource(region string) string {
	a := arn.ARN{
		Partition: id.partition,
		Service:   "secretsmanager",
		Region:    region,
		AccountID: id.account,
		Resource:  "secret:" + id.Name + id.Suffix,
	}
	if id.Suffix == "" {
		a.Resource += "*"
	}
	if a.AccountID == "" {
		a.Partition, a.AccountID = partitionOf(region), "<account-id>"
	}
	return a.String()
}

// partitionOf returns the partition, of those open to ordinary customers.
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
