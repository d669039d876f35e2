package unixsocket

import "net"

// forgetful is a connection whose calls leave nothing of what it carries in the
// processor's registers. A thread that copies memory has up to 256 bytes of it in
// its vector registers afterwards, and while it has nothing to do they stay, for
// minutes maybe. A core dump shows them, even one that has no memory in it. What
// a thread copies of a message is copied before it writes it, or before it waits
// for the next one.
type forgetful struct{ net.Conn }

// Read implements net.Conn.
func (c forgetful) Read(b []byte) (int, error) {
	clearRegisters()
	return c.Conn.Read(b)
}

// Write implements net.Conn.
func (c forgetful) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	clearRegisters()
	return n, err
}

// clearRegisters puts zeros wherever a copy leaves something. 256 bytes are what
// fits into all registers that copies use; it takes 10 ns.
func clearRegisters() {
	var from, to [256]byte
	duplicate(to[:], from[:])
}

// duplicate is not inlined: a copy whose length the compiler knows uses fewer
// registers.
//
//go:noinline
func duplicate(to, from []byte) { copy(to, from) }
