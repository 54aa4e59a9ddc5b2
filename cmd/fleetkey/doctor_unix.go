//go:build unix

package main

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const setClock = "sudo timedatectl set-ntp true"

// mode refuses rights that are too many, and reports whether they are not.
func (x *examination) mode(what, path string, info fs.FileInfo, tooMuch, want fs.FileMode) bool {
	have := info.Mode().Perm()
	if have&tooMuch == 0 || info.Mode()&fs.ModeSticky != 0 && info.IsDir() {
		x.found(fine, what+" mode", fmt.Sprintf("%04o", have), "")
		return true
	}
	why := "others can reach private keys"
	if info.IsDir() {
		why = "others can put other keys in their place"
	}
	x.found(wrong, what+" mode", fmt.Sprintf("%04o: %s", have, why), fmt.Sprintf("chmod %o %s", want, quote(path)))
	return false
}

// mine is the command that gives a file to the user who runs this.
func mine(path string) string { return fmt.Sprintf("sudo chown %d %s", os.Geteuid(), quote(path)) }

// owner tells whose something is. Root can read everything, so that it says
// nothing of the server.
func (x *examination) owner(what, path string, info fs.FileInfo) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	me := os.Geteuid()
	switch {
	case !ok:
	case int(stat.Uid) == me:
		x.found(fine, what+" owner", fmt.Sprintf("uid %d, as this process", me), "")
	case me != 0 && what == "file":
		x.found(wrong, what+" owner", fmt.Sprintf("uid %d, and this process is uid %d", stat.Uid, me), mine(path))
	default:
		x.found(minor, what+" owner", fmt.Sprintf("uid %d; run doctor as that user to see what the server sees", stat.Uid), "")
	}
}
