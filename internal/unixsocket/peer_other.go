//go:build !linux

package unixsocket

import "net"

// peerOf has no SO_PEERCRED to read here.
func peerOf(net.Conn) (Peer, error) { return Peer{}, errNoPeer }
