//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const setClock = "sudo timedatectl set-ntp true"

// access examines who can access the file, and reports whether a server would read it.
func (x *examination) access(path string, info fs.FileInfo) bool {
	mode, me := info.Mode().Perm(), os.Geteuid()
	stat, ok := info.Sys().(*syscall.Stat_t)
	others := ok && me != 0 && int(stat.Uid) != me
	switch {
	case x.readOnly:
		x.found(fine, "file mode", fmt.Sprintf("%04o, as chosen by the provider of the file", mode), "")
		return true
	case mode&0o077 != 0 && (others || errors.Is(syscall.Access(path, 2), syscall.EROFS)):
		x.found(wrong, "file mode", fmt.Sprintf("%04o: others can access private keys, and the mode cannot be changed here: set FileOptions.ReadOnly if it is a mounted secret", mode), "")
		return false
	}
	if errors.Is(syscall.Access(path, 2), syscall.EPERM) {
		x.cannotWrite("file", "it is immutable", "sudo chattr -i "+quote(path))
	}
	x.owner("file", path, info)
	return x.mode("file", path, info, 0o077, 0o600)
}

// mode reports permissions that are too broad, and returns whether they are fine.
func (x *examination) mode(what, path string, info fs.FileInfo, tooMuch, want fs.FileMode) bool {
	have := info.Mode().Perm()
	if have&tooMuch == 0 || info.Mode()&fs.ModeSticky != 0 && info.IsDir() {
		x.found(fine, what+" mode", fmt.Sprintf("%04o", have), "")
		return true
	}
	why := "others can access private keys"
	if info.IsDir() {
		why = "others can replace the keys"
	}
	x.found(wrong, what+" mode", fmt.Sprintf("%04o: %s", have, why), fmt.Sprintf("chmod %o %s", want, quote(path)))
	return false
}

// mine returns the command that gives a file to the current user.
func mine(path string) string { return fmt.Sprintf("sudo chown %d %s", os.Geteuid(), quote(path)) }

// newDir returns the command that creates a directory for the current user.
func newDir(path string) string {
	return fmt.Sprintf("sudo install -d -m 700 -o %d %s", os.Geteuid(), quote(path))
}

// owner reports the owner. Root can read everything, so for root it says nothing about the
// server.
func (x *examination) owner(what, path string, info fs.FileInfo) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	me := os.Geteuid()
	switch {
	case !ok:
	case int(stat.Uid) == me:
		x.found(fine, what+" owner", fmt.Sprintf("uid %d, same as this process", me), "")
	case me != 0 && what == "file":
		x.found(wrong, what+" owner", fmt.Sprintf("uid %d, and this process is uid %d", stat.Uid, me), mine(path))
	default:
		x.found(minor, what+" owner", fmt.Sprintf("uid %d; run doctor as that user to see what the server sees", stat.Uid), "")
	}
}
