// Package arch holds the rules of the source tree as tests: who may import whom,
// which module replaces which, and what product code must not contain. There is
// no code here but the tests.
package arch
