package sdk_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-dev/postern/providers/sdk"
)

// greeter is a provider whose store is a map.
type greeter struct {
	secrets map[string]string
}

// object is one entry of the parameter "objects".
type object struct {
	ObjectName     string       `json:"objectName"`
	FilePermission sdk.FileMode `json:"filePermission"`
}

func (g *greeter) Fetch(_ context.Context, req *sdk.Request) (*sdk.Response, error) {
	d := sdk.NewDecoder(req.Parameters)
	greeting := d.String("greeting", "hello")
	var objects []object
	d.YAML("objects", &objects)
	if err := d.Err(); err != nil {
		return nil, err
	}
	resp := &sdk.Response{Sharing: sdk.SharingNamespace}
	for _, o := range objects {
		secret, ok := g.secrets[o.ObjectName]
		if !ok {
			return nil, sdk.NotFound(o.ObjectName, "the store has no such secret: create it or correct objectName")
		}
		resp.Files = append(resp.Files, sdk.File{
			Path: o.ObjectName, Mode: o.FilePermission.Or(req.DefaultFileMode),
			Contents: sdk.NewSecret([]byte(greeting + " " + secret)),
		})
		resp.Objects = append(resp.Objects, sdk.ObjectVersion{ID: o.ObjectName, Version: "7"})
	}
	return resp, nil
}

// A provider is one method and a Definition of it.
func Example() {
	def := sdk.Definition{
		Name: "greeter",
		Parameters: []sdk.Parameter{
			{Name: "greeting", Description: "What to say first."},
			{Name: "objects", Description: "YAML list of secrets.", Required: true},
		},
		New: func(context.Context, sdk.Environment) (sdk.Provider, error) {
			return &greeter{secrets: map[string]string{"name": "world"}}, nil
		},
	}
	if err := def.Validate(); err != nil {
		fmt.Println(err)
	}
	// A main function would now call sdk.Main(def).
	provider, _ := def.New(context.Background(), sdk.Environment{})
	resp, err := provider.Fetch(context.Background(), &sdk.Request{
		Parameters: sdk.Parameters{"objects": "- objectName: name\n  filePermission: \"0600\"\n"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	file := resp.Files[0]
	fmt.Println(file.Path, file.Mode, file.Contents, string(file.Contents.Reveal()))

	_, err = provider.Fetch(context.Background(), &sdk.Request{
		Parameters: sdk.Parameters{"objects": "- objectName: nobody\n"},
	})
	fmt.Println(err)
	// Output:
	// name -rw------- [redacted] hello world
	// object "nobody": the store has no such secret: create it or correct objectName
}

// All that is wrong with the parameters is told at once.
func ExampleDecoder() {
	d := sdk.NewDecoder(sdk.Parameters{"verbose": "perhaps", "interval": "5"})
	d.Required("role", "is required: name the role to log in with")
	d.Bool("verbose", false)
	d.Duration("interval", 0)
	err := d.Err()
	if e, ok := errors.AsType[*sdk.Error](err); ok {
		fmt.Println(e.Reason)
		for _, v := range e.Fields {
			fmt.Printf("%s: %s\n", v.Field, v.Description)
		}
	}
	// Output:
	// INVALID_PARAMETERS
	// role: is required: name the role to log in with
	// verbose: must be true or false, not "perhaps"
	// interval: must be a duration such as "90s" or "5m", not "5"
}
