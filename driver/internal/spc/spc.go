// Package spc says how a source of SecretProviderClasses fails, whichever
// source it is: the API server (package kube) or a directory (package spcdir).
//
// The errors do not name the class; the caller, who asked for it, does.
package spc

import "errors"

// What can be told apart by the caller; all else is worth another attempt.
var (
	// ErrNotFound: the source was asked and has no such class.
	ErrNotFound = errors.New("no such SecretProviderClass")
	// ErrForbidden: the driver may not read it. Only an administrator can help.
	ErrForbidden = errors.New("the driver may not read SecretProviderClasses")
	// ErrUnavailable: the source cannot be asked now.
	ErrUnavailable = errors.New("the source of SecretProviderClasses is not available")
	// ErrInvalid: the source has it, and it cannot be understood.
	ErrInvalid = errors.New("the SecretProviderClass is not valid")
)
