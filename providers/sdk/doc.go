// Package sdk is what a provider of Postern is written against: a provider
// fetches the secrets of one kind of store for the pods of a node.
//
// # A provider
//
// A provider is a type with one method, and a [Definition] of it:
//
//	type provider struct{ client *store.Client }
//
//	func (p *provider) Fetch(ctx context.Context, req *sdk.Request) (*sdk.Response, error) {
//		d := sdk.NewDecoder(req.Parameters)
//		role := d.Required("role", "")
//		var objects []object
//		if !d.YAML("objects", &objects) {
//			d.Violate("objects", "names no secret")
//		}
//		if err := d.Err(); err != nil { // all violations at once
//			return nil, err
//		}
//		token, ok := req.Tokens.For("store.example.com")
//		if !ok {
//			return nil, sdk.TokenMissing("store.example.com")
//		}
//		...
//	}
//
//	func Definition() sdk.Definition {
//		var address string
//		return sdk.Definition{
//			Name:      "example",
//			Audiences: []sdk.Audience{{Value: "store.example.com"}},
//			Parameters: []sdk.Parameter{
//				{Name: "role", Description: "The role to log in with.", Required: true},
//				{Name: "objects", Description: "YAML list of secrets.", Required: true},
//			},
//			Flags: func(f *sdk.Flags) {
//				f.String(&address, "address", "", "address of the store (required)")
//			},
//			New: func(ctx context.Context, env sdk.Environment) (sdk.Provider, error) {
//				return newProvider(address, env)
//			},
//		}
//	}
//
//	func main() { os.Exit(sdk.Main(example.Definition())) }
//
// That is all: [Main] parses flags and environment, opens the socket, serves
// both protocols, refuses callers of other users, checks requests and answers,
// turns errors into statuses, logs, measures and traces each call, tells its
// health, and at the end drains.
//
// # Who gets an answer
//
// The pod in a Request is the one whose tokens come with it. A provider shows
// the store that pod's identity and not its own. It may keep what is costly to
// make, such as a login, but only under a key that holds all that the store
// was shown; package credentials does that. Contents need not be kept: the
// gateway keeps answers, for whom [Response.Sharing] allows and as long as
// FreshFor says. A provider that says
// nothing has its answers given once, to the pod that asked.
//
// # Secrets
//
// Tokens and contents travel as [SecretString] and [Secret], which print as
// "[redacted]"; where their Reveal is called, a reader looks twice. Nothing of
// them may get into an error, a log record, a span or a metric. As
// a second line of defence the sdk takes a request's own tokens and secrets out
// of the errors that it sends, and hides the text of errors that are no
// [*Error]; it cannot recognise a content.
//
// # Errors
//
// What fails is told with an [*Error], made by [NotFound], [AccessDenied],
// [LoginFailed], [InvalidParameters], [RateLimited], [StoreUnavailable],
// [TokenMissing] and so on. Its reason decides what the callers do: whether
// they try again, back off, or serve what they have. Its message is for the one
// who wrote the SecretProviderClass: it says what to do.
//
// # The upstream driver
//
// The same socket serves the protocol of the Secrets Store CSI driver
// (v1alpha1), for which it must be named after the provider: start with
// --instance=<name> and --listen-dir being one of the driver's directories. Of
// what that protocol lacks, a provider sees this: there are no annotations of
// the service account, no node labels, no CurrentObjects and no State; the
// volume's id is made of its target path; Release is never called, so what was
// leased ends by its time to live and a provider must not renew it for ever;
// Sharing, FreshFor and RefreshAfter are not used, and there is a Fetch a minute
// for each volume.
//
// # Tests
//
// Package providertest is a conformance suite that each provider's tests run.
package sdk
