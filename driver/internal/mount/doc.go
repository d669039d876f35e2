// Package mount mounts tmpfs file systems so that nobody sees one before it is
// filled, looks at what is mounted at a path, and takes mounts away. It does not
// know what the files mean.
//
// Where the kernel can, a tmpfs is made by fsopen(2) and fsmount(2), filled while
// it is attached nowhere, and put in place by move_mount(2). Elsewhere it is
// mounted and filled in a staging directory and bound to its place.
//
// It is there on Linux only, but for what a label must look like.
package mount
