package leaky

import "fmt"

// check makes an error that nobody prints.
func check(v any) error { return fmt.Errorf("cannot use %v", v) }
