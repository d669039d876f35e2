package redact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/postern-dev/postern/proto/gen/go/compat/v1alpha1"
	gatewayv1 "github.com/postern-dev/postern/proto/gen/go/postern/gateway/v1"
	providerv1 "github.com/postern-dev/postern/proto/gen/go/postern/provider/v1"
	secretv1 "github.com/postern-dev/postern/proto/gen/go/postern/secret/v1"
	"github.com/postern-dev/postern/proto/redact"
)

const (
	canary = "canary-hunter2"
	// visible stands beside the secrets and has to be printed.
	visible = "visible-name"
)

// secretMessages are all messages of the contracts that can hold a secret,
// each with one in every place that it has for it.
func secretMessages() map[string]proto.Message {
	files := []*secretv1.File{{Path: visible, Contents: []byte(canary)}}
	tokens := []*secretv1.Token{{Audience: visible, Token: canary}}
	secrets := map[string]string{visible: canary}
	return map[string]proto.Message{
		"Token":                  tokens[0],
		"File":                   files[0],
		"provider.FetchRequest":  &providerv1.FetchRequest{Tokens: tokens, Secrets: secrets},
		"provider.FetchResponse": &providerv1.FetchResponse{Files: files},
		"gateway.FetchRequest":   &gatewayv1.FetchRequest{Tokens: tokens, Secrets: secrets},
		"gateway.FetchResponse":  &gatewayv1.FetchResponse{Files: files},
		"v1alpha1.MountRequest":  &v1alpha1.MountRequest{Attributes: canary, Secrets: canary, TargetPath: visible},
		"v1alpha1.MountResponse": &v1alpha1.MountResponse{Files: []*v1alpha1.File{{Path: visible, Contents: []byte(canary)}}},
		"v1alpha1.File":          &v1alpha1.File{Path: visible, Contents: []byte(canary)},
	}
}

func TestMessagesNeverPrintTheirSecrets(t *testing.T) {
	t.Parallel()
	for name, message := range secretMessages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := proto.CloneOf(message)
			for how, printed := range printEveryWay(t, message) {
				if strings.Contains(printed, canary) || strings.Contains(printed, "Y2FuYXJ5") { // base64 of "canary"
					t.Errorf("%s shows the secret: %s", how, printed)
				}
				if !strings.Contains(printed, visible) {
					t.Errorf("%s hides what is no secret: %s", how, printed)
				}
			}
			if !proto.Equal(before, message) {
				t.Error("printing changed the message")
			}
		})
	}
}

func printEveryWay(t *testing.T, message proto.Message) map[string]string {
	t.Helper()
	ways := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		ways[verb] = fmt.Sprintf(verb, message)
	}
	ways["error"] = fmt.Errorf("call with %v", message).Error()
	encoded, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	ways["encoding/json"] = string(encoded)
	var text, jsonText bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("message", "message", message)
	slog.New(slog.NewJSONHandler(&jsonText, nil)).Info("message", "message", message)
	ways["slog text"], ways["slog JSON"] = text.String(), jsonText.String()
	return ways
}

func TestMessage_MarksAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	request := &providerv1.FetchRequest{
		VolumeId: "volume",
		Secrets:  map[string]string{"key": canary},
		Tokens:   []*secretv1.Token{{Audience: "vault", Token: canary}, {Audience: "none"}},
	}
	want := &providerv1.FetchRequest{
		VolumeId: "volume",
		Secrets:  map[string]string{"key": redact.Mark},
		Tokens:   []*secretv1.Token{{Audience: "vault", Token: redact.Mark}, {Audience: "none"}},
	}
	if got := redact.Message(request); !proto.Equal(got, want) {
		t.Errorf("Message: %s, want %s", prototext.Format(got), prototext.Format(want))
	}
}

func TestNilMessage(t *testing.T) {
	t.Parallel()
	var message *secretv1.Token
	if got := fmt.Sprint(message); got != "<nil>" {
		t.Errorf("Sprint: %s", got)
	}
	if got, err := json.Marshal(message); err != nil || string(got) != "null" {
		t.Errorf("Marshal: %s, %v", got, err)
	}
}
