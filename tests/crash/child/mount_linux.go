package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// A child in its own mount namespace first mounts what BIND specifies: the source, the
// target, and "ro", "rw", "replaced" or "removed", separated by colons.
func init() {
	args := strings.Split(os.Getenv("BIND"), ":")
	if len(args) != 3 {
		return
	}
	source, target, how := args[0], args[1], args[2]
	err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount(source, target, "", syscall.MS_BIND, ""))
	switch how {
	case "ro":
		const kept = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC // as /dev/shm has them
		err = errors.Join(err, syscall.Mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|kept, ""))
	case "replaced": // as a rotation outside the container does
		err = errors.Join(err, os.Rename(source+".new", source))
	case "removed": // as git clean does, or a deployment that recreates everything
		err = errors.Join(err, os.RemoveAll(source), os.Mkdir(source, 0o700))
	}
	if err != nil {
		panic(err)
	}
}
