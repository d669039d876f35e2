package secretsync

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apiv1 "github.com/postern-dev/postern/driver/api/v1"
	"github.com/postern-dev/postern/driver/internal/secretdata"
)

// What a Secret of the driver says about itself.
const (
	annotationClass    = "postern.dev/secret-provider-class"
	annotationProvider = "postern.dev/provider"
	annotationObjects  = "postern.dev/objects"
	// annotationFetchedAt is when the written content was fetched, RFC 3339.
	annotationFetchedAt = "postern.dev/fetched-at"
	// annotationRevision is which state of the class it was made of.
	annotationRevision = "postern.dev/secret-provider-class-revision"
	annotationNotice   = "postern.dev/notice"
)

const (
	// maxObjectsText bounds the list of objects.
	maxObjectsText = 1024
	// maxSkew is how far in the future the time of another node's fetch may be
	// to be believed.
	maxSkew = time.Minute
)

// revision is which state of a class something was made of.
type revision struct {
	uid        string
	generation int64
}

func revisionOf(class *apiv1.SecretProviderClass) revision {
	return revision{uid: string(class.UID), generation: class.Generation}
}

func (r revision) String() string { return r.uid + "/" + strconv.FormatInt(r.generation, 10) }

// parseRevision returns the zero revision for what is none.
func parseRevision(text string) revision {
	uid, number, _ := strings.Cut(text, "/")
	generation, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return revision{}
	}
	return revision{uid: uid, generation: generation}
}

// before tells whether r is an earlier state of the same class. Which of two
// classes of one name was first cannot be told.
func (r revision) before(other revision) bool {
	return r.uid == other.uid && r.generation < other.generation
}

func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || time.Until(t) > maxSkew {
		return time.Time{}
	}
	return t
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// describe returns the annotations that say what the Secret is.
func describe(volume *Volume, fetched time.Time) map[string]string {
	return map[string]string{
		annotationClass:     volume.Class.Name,
		annotationProvider:  volume.Provider,
		annotationObjects:   listObjects(volume.Objects),
		annotationFetchedAt: formatTime(fetched),
		annotationRevision:  revisionOf(volume.Class).String(),
		annotationNotice: fmt.Sprintf("Made by the Secrets Store CSI driver of what SecretProviderClass %s fetches. "+
			"Do not edit: changes are undone. Change the class, or the secret in its store.", volume.Class.Name),
	}
}

// listObjects is the same for the same objects in any order.
func listObjects(ids []string) string {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var list strings.Builder
	for i, id := range ids {
		if list.Len()+len(id)+1 > maxObjectsText {
			fmt.Fprintf(&list, " and %d more", len(ids)-i)
			break
		}
		if i > 0 {
			list.WriteByte(',')
		}
		list.WriteString(id)
	}
	return strings.TrimSpace(list.String())
}

// claim tells whether the class may write the Secret.
func claim(meta *metav1.ObjectMeta, class string) error {
	mirrored, marked := meta.Annotations[annotationClass]
	switch {
	case meta.Labels[secretdata.LabelManaged] != secretdata.LabelManagedValue:
		return lasting(reasonNotOurs, "it exists and is someone else's: rename it in the class (secretName), or delete it")
	case marked && mirrored != class:
		return lasting(reasonNotOurs, "it exists and mirrors SecretProviderClass %s: rename it in one of the classes (secretName), "+
			"or delete it if that class is no longer used", mirrored)
	case meta.DeletionTimestamp != nil:
		return &failure{reason: reasonConflict, temporary: true, err: fmt.Errorf("it is being deleted, and waits for finalizers %q", meta.Finalizers)}
	}
	return nil
}
