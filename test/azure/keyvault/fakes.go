package keyvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/postern-dev/postern/test/azure/api"
)

// recoverableDays is how long what is deleted can be recovered.
const recoverableDays, recoveryLevel = 90, "Recoverable+Purgeable"

// ask has one of Microsoft's fakes answer a call as the method of its client, and
// looks whether the client could read the answer. T is what the client reads.
func ask[T any](ctx context.Context, c call, fakeServer policy.Transporter, method string) (api.Answer, error) {
	// A fake that is cancelled goes on behind its caller's back.
	ctx = context.WithoutCancel(ctx)
	request := c.HTTP.Clone(context.WithValue(ctx, runtime.CtxAPINameKey{}, "Client."+method))
	request.URL.Scheme, request.URL.Host = "https", c.vault.host
	request.Body = io.NopCloser(bytes.NewReader(c.Body))
	response, err := fakeServer.Do(request)
	if err != nil {
		return api.Answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return api.Answer{}, fmt.Errorf("read the fake's answer: %w", err)
	}
	if err := readBack[T](body); err != nil {
		c.ViolateAnswer(err.Error())
	}
	return api.Answer{Status: response.StatusCode, ContentType: "application/json; charset=utf-8", Body: body}, nil
}

// readBack tells whether T reads all of a body.
func readBack[T any](body []byte) error {
	var read T
	if err := json.Unmarshal(body, &read); err != nil {
		return fmt.Errorf("its client cannot read it: %w", err)
	}
	again, err := json.Marshal(read)
	if err != nil {
		return fmt.Errorf("its client cannot write it: %w", err)
	}
	var want, got any
	if err := json.Unmarshal(body, &want); err != nil {
		return fmt.Errorf("it is no JSON: %w", err)
	}
	if err := json.Unmarshal(again, &got); err != nil {
		return fmt.Errorf("its client writes no JSON: %w", err)
	}
	if !reflect.DeepEqual(want, got) {
		return errors.New("its client reads only a part of it")
	}
	return nil
}

// found is an answer of a fake, or the error in its place.
func found[T any](value T, err error) (answer fake.Responder[T], failure fake.ErrorResponder) {
	if err != nil {
		failure.SetError(err)
		return answer, failure
	}
	answer.SetResponse(http.StatusOK, value, nil)
	return answer, failure
}

// onePage is a page of a list, or the error in its place. Each page is a request of
// its own here: the link to the next one is the double's, not the fake's.
func onePage[T any](page T, err error) (answer fake.PagerResponder[T]) {
	if err != nil {
		answer.AddError(err)
		return answer
	}
	answer.AddPage(http.StatusOK, page, nil)
	return answer
}

// optionalTime is nil for a time that is not said.
func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// optionalTags are nil if there are none.
func optionalTags(tags map[string]string) map[string]*string {
	if len(tags) == 0 {
		return nil
	}
	all := map[string]*string{}
	for name, value := range tags {
		all[name] = &value
	}
	return all
}

// optionalFlag is nil for what is not so.
func optionalFlag(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

func ptr[T any](v T) *T { return &v }
