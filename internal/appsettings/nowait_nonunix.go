//go:build !unix

package appsettings

const noWait = 0
