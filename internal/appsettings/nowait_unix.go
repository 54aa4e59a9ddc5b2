//go:build unix

package appsettings

import "syscall"

// noWait keeps open from blocking on a FIFO.
const noWait = syscall.O_NONBLOCK
